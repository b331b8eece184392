/* The least that starts an instance as the target namespace does: its system calls, and no program but /init.

   namespace FIFO TREE LAYER UID [mkdir FOLDER | write FILE VALUE]...

   FIFO: the doorbell. TREE: the bundle, which belongs to UID. LAYER: an empty folder. UID: the host's uid and gid that
   become root inside. What follows makes the control group and joins it, in that order. Prints the nanoseconds of
   CLOCK_MONOTONIC at which it began, and stays until it is killed, and the instance with it. Run as root.

   Source: clone(2), user_namespaces(7), pivot_root(2), and Linux, Documentation/filesystems/overlayfs.rst. */

#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/sched.h>
#include <net/if.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define NAMESPACES \
    (CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWPID | CLONE_NEWUSER | CLONE_NEWCGROUP)

static const char *const DEVICES[] = {"dev/null", "dev/zero", "dev/random", "dev/urandom"};

static long must(long done, const char *what) {
    if (done < 0)
        err(1, "%s", what);
    return done;
}

static char *text(const char *first, const char *second) {
    char *made;
    must(asprintf(&made, "%s%s", first, second), "asprintf");
    return made;
}

static void write_to(const char *file, const char *value) {
    int fd = must(open(file, O_WRONLY | O_CLOEXEC), file);
    must(write(fd, value, strlen(value)), file);
    close(fd);
}

static void make_layer(uid_t uid) {
    static const char *const folders[] = {"upper", "work", "root"};
    for (int i = 0; i < 3; i++) {
        must(mkdir(folders[i], 0755), folders[i]);
        must(chown(folders[i], uid, uid), folders[i]);
    }
}

static void become(uid_t uid) {
    must(setgroups(0, NULL), "setgroups");
    must(setresgid(uid, uid, uid), "setresgid");
    must(setresuid(uid, uid, uid), "setresuid");
    must(prctl(PR_SET_DUMPABLE, 1), "dumpable"); /* else /proc/self belongs to root, and uid_map with it */
    must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs");
}

static void map_root(const char *uid) {
    char *map = text("0 ", text(uid, " 1"));
    write_to("/proc/self/uid_map", map);
    write_to("/proc/self/setgroups", "deny");
    write_to("/proc/self/gid_map", map);
}

static void mount_all(const char *fifo, const char *tree) {
    must(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL), "private");
    char *options = text(text("lowerdir=", tree), ",upperdir=upper,workdir=work,userxattr");
    must(mount("overlay", "root", "overlay", 0, options), "overlay");
    must(chdir("root"), "root");
    for (unsigned i = 0; i < sizeof DEVICES / sizeof *DEVICES; i++)
        must(mount(text("/", DEVICES[i]), DEVICES[i], NULL, MS_BIND, NULL), DEVICES[i]);
    must(mount(fifo, "run/doorbell", NULL, MS_BIND, NULL), "doorbell");
    must(mount("proc", "proc", "proc", 0, NULL), "proc");
}

static void loopback_up(void) {
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP};
    int fd = must(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), "socket");
    must(ioctl(fd, SIOCSIFFLAGS, &request), "lo");
    close(fd);
}

int main(int count, char **words) {
    struct timespec began;
    clock_gettime(CLOCK_MONOTONIC, &began);
    if (count < 5)
        return 2;
    const char *fifo = words[1], *tree = words[2], *layer = words[3], *uid = words[4];
    dprintf(STDOUT_FILENO, "%lld\n", began.tv_sec * 1000000000LL + began.tv_nsec);
    must(chdir(layer), layer);
    make_layer(atoi(uid));
    for (char **step = words + 5; *step; step += 2) {
        if (!strcmp(step[0], "mkdir"))
            must(mkdir(step[1], 0755), step[1]);
        else
            write_to(step[1], step[2]), step++;
    }
    become(atoi(uid));
    must(prctl(PR_SET_PDEATHSIG, SIGKILL), "pdeathsig"); /* after: a change of uid takes it back */
    struct clone_args how = {.flags = NAMESPACES, .exit_signal = SIGCHLD};
    pid_t child = must(syscall(SYS_clone3, &how, sizeof how), "clone3");
    if (child == 0) {
        must(prctl(PR_SET_PDEATHSIG, SIGKILL), "pdeathsig");
        map_root(uid);
        mount_all(fifo, tree);
        loopback_up();
        must(syscall(SYS_pivot_root, ".", "."), "pivot_root");
        must(umount2(".", MNT_DETACH), "umount");
        execl("/init", "/init", NULL);
        must(-1, "/init");
    }
    must(waitpid(child, NULL, 0), "waitpid");
    return 1;
}
