/* The least that starts an instance as the target namespace does: every system call of it, and no program but /init.

   namespace FIFO TREE LAYER UID [mkdir FOLDER | write FILE VALUE]...

   FIFO: the doorbell. TREE: the bundle. LAYER: an empty folder. UID: of the host, who becomes root inside; 0: whoever
   runs us. Then what makes the control group and joins it, in order. Prints the nanoseconds from the first folder to
   READY, and leaves nothing behind but folders. Any failure is told on stderr, and the status is 1.

   Source: clone(2), user_namespaces(7), pivot_root(2), and Linux, Documentation/filesystems/overlayfs.rst. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/sched.h>
#include <net/if.h>
#include <poll.h>
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

#define SEVEN (CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWPID | CLONE_NEWUSER | CLONE_NEWCGROUP)
#define TIMEOUT 10000 /* milliseconds to READY */

static const char *const DEVICES[] = {"null", "zero", "random", "urandom"};

static void must(int done, const char *what) {
    if (done >= 0) return;
    fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
    exit(1);
}

static char *text(const char *format, const char *first, const char *second) {
    char *made;
    must(asprintf(&made, format, first, second), "asprintf");
    return made;
}

static void write_to(const char *file, const char *value) {
    int fd = open(file, O_WRONLY | O_CLOEXEC);
    must(fd, file);
    must(write(fd, value, strlen(value)), file);
    close(fd);
}

static void bind_at(const char *source, const char *target) {
    must(mount(source, target, NULL, MS_BIND, NULL), target);
}

static void loopback_up(void) {
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    must(fd, "socket");
    must(ioctl(fd, SIOCSIFFLAGS, &request), "lo");
    close(fd);
}

/* Inside the seven namespaces. */
static void enter(const char *fifo, const char *tree, const char *layer, const char *uid, const char *gid) {
    must(prctl(PR_SET_PDEATHSIG, SIGKILL), "pdeathsig");
    write_to("/proc/self/uid_map", text("0 %s 1", uid, NULL));
    write_to("/proc/self/setgroups", "deny");
    write_to("/proc/self/gid_map", text("0 %s 1", gid, NULL));
    must(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL), "private");
    char *upper = text("%s/upper,workdir=%s/work,userxattr", layer, layer);
    char *root = text("%s/root", layer, NULL);
    must(mount("overlay", root, "overlay", 0, text("lowerdir=%s,upperdir=%s", tree, upper)), "overlay");
    must(chdir(root), root);
    for (unsigned i = 0; i < sizeof DEVICES / sizeof *DEVICES; i++)
        bind_at(text("/dev/%s", DEVICES[i], NULL), text("dev/%s", DEVICES[i], NULL));
    bind_at(fifo, "run/doorbell");
    must(mount("proc", "proc", "proc", 0, NULL), "proc");
    loopback_up();
    must(syscall(SYS_pivot_root, ".", "."), "pivot_root");
    must(umount2(".", MNT_DETACH), "umount");
    must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs");
    execl("/init", "/init", NULL);
    must(-1, "/init");
}

static long long now(void) {
    struct timespec at;
    must(clock_gettime(CLOCK_MONOTONIC, &at), "clock");
    return at.tv_sec * 1000000000LL + at.tv_nsec;
}

static void listen_for_ready(int bell) {
    char heard[65536] = "";
    size_t size = 0;
    struct pollfd polled = {.fd = bell, .events = POLLIN};
    while (!strstr(heard, "READY\n")) {
        int events = poll(&polled, 1, TIMEOUT);
        must(events, "poll");
        if (events == 0) errno = ETIMEDOUT, must(-1, "READY");
        ssize_t more = read(bell, heard + size, sizeof heard - 1 - size);
        must(more, "doorbell");
        size += more;
    }
}

int main(int count, char **words) {
    if (count < 5) return 2;
    char *fifo = words[1], *tree = words[2], *layer = words[3];
    uid_t uid = atoi(words[4]) ? (uid_t)atoi(words[4]) : geteuid();
    gid_t gid = atoi(words[4]) ? (gid_t)uid : getegid();
    int bell = open(fifo, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    must(bell, fifo);
    int log = open(text("%s/log", layer, NULL), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    long long requested = now();
    static const char *const parts[] = {"upper", "work", "root"};
    for (int i = 0; i < 3; i++) {
        char *part = text("%s/%s", layer, parts[i]);
        must(mkdir(part, 0755), part);
        must(chown(part, uid, gid), part);
    }
    for (int i = 5; i < count; i++) {
        if (!strcmp(words[i], "mkdir")) must(mkdir(words[i + 1], 0755), words[i + 1]), i += 1;
        else write_to(words[i + 1], words[i + 2]), i += 2;
    }
    if (uid != geteuid()) {
        must(setgroups(0, NULL), "setgroups");
        must(setresgid(gid, gid, gid), "setresgid");
        must(setresuid(uid, uid, uid), "setresuid");
        must(prctl(PR_SET_DUMPABLE, 1), "dumpable"); /* else /proc/self of the child is root's */
    }
    char *uid_text, *gid_text;
    must(asprintf(&uid_text, "%u", uid), "asprintf");
    must(asprintf(&gid_text, "%u", gid), "asprintf");
    struct clone_args how = {.flags = SEVEN, .exit_signal = SIGCHLD};
    pid_t child = syscall(SYS_clone3, &how, sizeof how);
    must(child, "clone3");
    if (child == 0) {
        dup2(log, 1), dup2(log, 2);
        setsid();
        enter(fifo, tree, layer, uid_text, gid_text);
    }
    listen_for_ready(bell);
    printf("%lld\n", now() - requested);
    must(kill(child, SIGKILL), "kill");
    must(waitpid(child, NULL, 0), "wait");
    return 0;
}
