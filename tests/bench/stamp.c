/* stamp.c - what a measured task runs: it tells a socket the monotonic time at which it began. A
 * program of its own, linked to nothing, so that loading it is not what is measured.
 */
#include <stdint.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

int main(int argc, char **argv)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    struct timespec now;
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    int64_t now_ns;

    clock_gettime(CLOCK_MONOTONIC, &now);
    now_ns = now.tv_sec * 1000000000LL + now.tv_nsec;
    if (argc < 2 || fd < 0)
        return 2;
    snprintf(to.sun_path, sizeof(to.sun_path), "%s", argv[1]);
    return sendto(fd, &now_ns, sizeof(now_ns), 0, (struct sockaddr *)&to, sizeof(to)) ==
                   (ssize_t)sizeof(now_ns)
               ? 0
               : 1;
}
