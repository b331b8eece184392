/* Holds known amounts of memory of each kind, writes that file, burns CPU until it has used known seconds of it in all,
 * then returns and leaves behind a child that holds the same, and now spins.
 *   holder ANONYMOUS FILE SHMEM SECONDS     (MiB, MiB, MiB, seconds of CPU time of this process) */
#include <err.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define MIB (1UL << 20)
#define PATH "/var/held"

static char *map(size_t size, int protection, int flags, int fd) {
    char *memory = mmap(NULL, size ? size : 1, protection, flags, fd, 0);
    if (memory == MAP_FAILED)
        err(1, "mmap");
    return memory;
}

static double used(void) {
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return now.tv_sec + now.tv_nsec / 1e9;
}

int main(int argc, char **argv) {
    if (argc != 5)
        errx(2, "four amounts");
    size_t anonymous = atol(argv[1]) * MIB, file = atol(argv[2]) * MIB, shmem = atol(argv[3]) * MIB;

    memset(map(anonymous, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1), 1, anonymous);
    volatile char *shared = map(shmem, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1);

    int fd = open(PATH, O_RDWR | O_CREAT | O_TRUNC, 0600);
    if (fd < 0)
        err(1, PATH);
    static char block[MIB];
    for (size_t i = 0; i < MIB; i++) /* nothing that a disk could leave out */
        block[i] = (char)(i * 2654435761u >> 13);
    for (size_t written = 0; written < file; written += MIB)
        if (write(fd, block, MIB) != (ssize_t)MIB)
            err(1, "write");
    if (fsync(fd))
        err(1, "fsync");
    volatile char *mapped = map(file, PROT_READ, MAP_SHARED, fd);

    int ready[2], over[2];
    if (pipe(ready) || pipe(over))
        err(1, "pipe");
    pid_t child = fork();
    if (child < 0)
        err(1, "fork");
    char byte = 0;
    if (child == 0) {
        close(over[1]);
        for (size_t at = 0; at < shmem; at += 4096) /* a fork takes with it no page tables of what is shared */
            shared[at] = 1;
        for (size_t at = 0; at < file; at += 4096)
            byte += mapped[at];
        if (write(ready[1], &byte, 1) != 1 || read(over[0], &byte, 1) != 0)
            err(1, "pipe");
        for (;;) /* from its parent's end on */
            ;
    }
    if (read(ready[0], &byte, 1) != 1)
        err(1, "pipe");
    while (used() < atof(argv[4]))
        ;
    return 0;
}
