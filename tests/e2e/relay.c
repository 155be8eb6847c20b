/* relay.c - a TCP relay that writes down what passes, so that a test can look at the wire.
 *
 *   relay --record FOLDER HOST:PORT...
 *
 * Prints one line "ready PORT..." with a port on loopback for each target. Each connection leaves
 * two files, FOLDER/N.up and N.down: one direction a file, or a string that crosses two reads could
 * be cut in two by what went the other way.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { TARGETS_MAX = 8, PAIRS_MAX = 256, CHUNK_BYTES = 65536 };

struct pair {
    int sockets[2]; /* from the peer, to the target */
    int files[2];   /* what [0] said, what [1] said */
    bool open;
};

static struct pair pairs[PAIRS_MAX];
static struct { int listener; struct sockaddr_in address; } targets[TARGETS_MAX];
static int n_targets, n_pairs, n_recorded;
static const char *folder;

static void fail(const char *what)
{
    fprintf(stderr, "relay: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int record_open(const char *direction)
{
    char path[4096];
    int fd;

    snprintf(path, sizeof(path), "%s/%d.%s", folder, n_recorded, direction);
    fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        fail(path);
    return fd;
}

static void write_whole(int fd, const char *data, size_t size, bool *ret_broken)
{
    while (size > 0) {
        ssize_t n = write(fd, data, size);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            *ret_broken = true;
            return;
        }
        data += n;
        size -= (size_t)n;
    }
}

static void pair_open(int target)
{
    int one = 1, from = accept4(targets[target].listener, NULL, NULL, SOCK_CLOEXEC);
    int to = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct pair *pair = NULL;

    for (int i = 0; i < PAIRS_MAX && !pair; i++)
        if (!pairs[i].open)
            pair = &pairs[i];
    if (from < 0 || to < 0 || !pair ||
        connect(to, (struct sockaddr *)&targets[target].address, sizeof(targets[target].address)) < 0) {
        close(from);
        close(to);
        return;
    }
    setsockopt(from, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    setsockopt(to, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    *pair = (struct pair){.sockets = {from, to}, .files = {record_open("up"), record_open("down")}, .open = true};
    n_recorded++;
    if (pair - pairs >= n_pairs)
        n_pairs = (int)(pair - pairs) + 1;
}

static void pair_close(struct pair *pair)
{
    for (int i = 0; i < 2; i++) {
        close(pair->sockets[i]);
        close(pair->files[i]);
    }
    pair->open = false;
}

/* Written down before it is passed on: what a peer has seen is on record. */
static void pair_pass(struct pair *pair, int side)
{
    static char chunk[CHUNK_BYTES];
    bool lost = false, broken = false;
    ssize_t n = read(pair->sockets[side], chunk, sizeof(chunk));

    if (n > 0) {
        write_whole(pair->files[side], chunk, (size_t)n, &lost);
        if (lost)
            fail("the record cannot be written");
        write_whole(pair->sockets[!side], chunk, (size_t)n, &broken);
    }
    if (n <= 0 || broken)
        pair_close(pair);
}

static void target_open(const char *text)
{
    struct sockaddr_in own = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_in *address = &targets[n_targets].address;
    const char *colon = strrchr(text, ':');
    char host[64];

    if (!colon || n_targets == TARGETS_MAX) {
        fprintf(stderr, "relay: %s: give up to %d HOST:PORT\n", text, TARGETS_MAX);
        exit(2);
    }
    snprintf(host, sizeof(host), "%.*s", (int)(colon - text), text);
    *address = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(colon + 1))};
    if (inet_pton(AF_INET, host, &address->sin_addr) != 1) {
        fprintf(stderr, "relay: %s: it is no IPv4 address\n", host);
        exit(2);
    }
    targets[n_targets].listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(targets[n_targets].listener, (struct sockaddr *)&own, sizeof(own)) < 0 ||
        listen(targets[n_targets].listener, 64) < 0)
        fail("listen");
    n_targets++;
}

static void announce(void)
{
    printf("ready");
    for (int i = 0; i < n_targets; i++) {
        struct sockaddr_in own;
        socklen_t size = sizeof(own);

        if (getsockname(targets[i].listener, (struct sockaddr *)&own, &size) < 0)
            fail("getsockname");
        printf(" %d", ntohs(own.sin_port));
    }
    printf("\n");
    fflush(stdout);
}

static void turn(void)
{
    struct pollfd polls[TARGETS_MAX + PAIRS_MAX * 2];
    int n = 0, seen_pairs = n_pairs;

    for (int i = 0; i < n_targets; i++)
        polls[n++] = (struct pollfd){.fd = targets[i].listener, .events = POLLIN};
    for (int i = 0; i < seen_pairs; i++)
        for (int side = 0; side < 2; side++)
            polls[n++] = (struct pollfd){.fd = pairs[i].open ? pairs[i].sockets[side] : -1, .events = POLLIN};
    if (poll(polls, (nfds_t)n, -1) < 0 && errno != EINTR)
        fail("poll");
    for (int i = 0; i < seen_pairs; i++)
        for (int side = 0; side < 2; side++)
            if (pairs[i].open && polls[n_targets + i * 2 + side].revents)
                pair_pass(&pairs[i], side);
    for (int i = 0; i < n_targets; i++)
        if (polls[i].revents)
            pair_open(i);
}

int main(int argc, char **argv)
{
    if (argc < 4 || strcmp(argv[1], "--record") != 0) {
        fprintf(stderr, "usage: relay --record FOLDER HOST:PORT...\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    folder = argv[2];
    for (int i = 3; i < argc; i++)
        target_open(argv[i]);
    announce();
    for (;;)
        turn();
}
