/* relay.c - a TCP relay that writes down what passes, so that a test can look at the wire, and that
 * fails as links do.
 *
 *   relay [--record FOLDER] [--commands FIFO] [--delay MS] HOST:PORT...
 *
 * Prints one line "ready PORT..." with a port on loopback for each target. Each connection leaves
 * two files, FOLDER/N.up and N.down: one direction a file, or a string that crosses two reads could
 * be cut in two by what went the other way.
 *
 * A line in the FIFO changes what becomes of connections; each is answered by a line "did COMMAND":
 *
 *   cut        all are closed, and each new one at once
 *   stall      all stay, and nothing passes; new ones too
 *   delay MS   what passes from now on takes this long, each way; as --delay at the start
 *   rate N     so many bytes a second pass, each way of a connection; 0: as many as can
 *   kill N PID after N more bytes, both ways together, the process is killed: a line "killed PID"
 *   count      answered by "did count UP DOWN": the bytes that came from peers, and for them
 *   open       as at first: what was held passes. Connections that came meanwhile are led to the
 *              target in the reverse of their order
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { TARGETS_MAX = 8, PAIRS_MAX = 256, CHUNK_BYTES = 256 << 10, HELD_BYTES_MAX = 64 << 20, SPARE_MAX = 64 };

struct chunk {
    struct chunk *next;
    int64_t due_us;
    size_t size, sent;
    char data[];
};

struct way { /* what one side said and the other has not got yet */
    struct chunk *first, **last;
    size_t bytes;
    int64_t free_us; /* when the last that came is through, at that rate */
    int file;
};

struct pair {
    int sockets[2]; /* from the peer, to the target (-1: not led there yet) */
    struct way ways[2];
    int target;
    bool open, ended[2]; /* this side has closed: the rest goes out first */
};

static struct pair pairs[PAIRS_MAX];
static struct { int listener; struct sockaddr_in address; } targets[TARGETS_MAX];
static int n_targets, n_recorded, commands = -1, delay_ms;
static long long rate; /* bytes a second; 0: any */
static long long came[2], kill_after;
static int kill_pid; /* 0: nobody */
static struct chunk *spare;
static int n_spare;
static enum { OPEN, STALL, CUT } mode;
static const char *folder;

static void fail(const char *what)
{
    fprintf(stderr, "relay: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int64_t now_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000LL + now.tv_nsec / 1000;
}

static struct chunk *chunk_new(void)
{
    struct chunk *chunk = spare;

    if (!chunk)
        return malloc(sizeof(*chunk) + CHUNK_BYTES);
    spare = chunk->next;
    n_spare--;
    return chunk;
}

static void chunk_free(struct chunk *chunk)
{
    if (n_spare == SPARE_MAX) {
        free(chunk);
        return;
    }
    chunk->next = spare;
    spare = chunk;
    n_spare++;
}

static int record_open(const char *direction)
{
    char path[4096];
    int fd;

    if (!folder)
        return -1;
    snprintf(path, sizeof(path), "%s/%d.%s", folder, n_recorded, direction);
    fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        fail(path);
    return fd;
}

/* Written down before it is passed on: what a peer has seen is on record. */
static void record(int fd, const char *data, size_t size)
{
    while (fd >= 0 && size > 0) {
        ssize_t n = write(fd, data, size);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            fail("the record cannot be written");
        data += n;
        size -= (size_t)n;
    }
}

/* ---- connections ---- */

static void pair_close(struct pair *pair)
{
    for (int side = 0; side < 2; side++) {
        struct way *way = &pair->ways[side];

        if (pair->sockets[side] >= 0)
            close(pair->sockets[side]);
        if (way->file >= 0)
            close(way->file);
        while (way->first) {
            struct chunk *chunk = way->first;

            way->first = chunk->next;
            chunk_free(chunk);
        }
    }
    pair->open = false;
}

static void socket_quick(int fd)
{
    int one = 1;

    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    fcntl(fd, F_SETFL, O_NONBLOCK);
}

static void pair_lead(struct pair *pair)
{
    const struct sockaddr_in *address = &targets[pair->target].address;
    int to = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (to < 0 || connect(to, (const struct sockaddr *)address, sizeof(*address)) < 0) {
        if (to >= 0)
            close(to);
        pair_close(pair);
        return;
    }
    socket_quick(to);
    pair->sockets[1] = to;
}

static void pair_open(int target)
{
    int from = accept4(targets[target].listener, NULL, NULL, SOCK_CLOEXEC);
    struct pair *pair = NULL;

    for (int i = 0; i < PAIRS_MAX && !pair; i++)
        if (!pairs[i].open)
            pair = &pairs[i];
    if (from < 0)
        return;
    if (!pair || mode == CUT) {
        close(from);
        return;
    }
    socket_quick(from);
    *pair = (struct pair){.sockets = {from, -1}, .target = target, .open = true};
    pair->ways[0].file = record_open("up");
    pair->ways[1].file = record_open("down");
    pair->ways[0].last = &pair->ways[0].first;
    pair->ways[1].last = &pair->ways[1].first;
    n_recorded++;
    if (mode == OPEN)
        pair_lead(pair);
}

static bool reads(const struct pair *pair, int side)
{
    return mode == OPEN && pair->open && pair->sockets[!side] >= 0 && !pair->ended[side] &&
           pair->ways[side].bytes < HELD_BYTES_MAX;
}

static void came_in(int side, ssize_t n)
{
    came[side] += n;
    kill_after -= n;
    if (kill_pid == 0 || kill_after > 0)
        return;
    kill(kill_pid, SIGKILL);
    printf("killed %d\n", kill_pid);
    fflush(stdout);
    kill_pid = 0;
}

static void pair_read(struct pair *pair, int side)
{
    struct chunk *chunk = chunk_new();
    struct way *way = &pair->ways[side];
    ssize_t n = chunk ? read(pair->sockets[side], chunk->data, CHUNK_BYTES) : -1;

    if (n <= 0) {
        pair->ended[side] = n == 0 || (errno != EAGAIN && errno != EINTR);
        if (chunk)
            chunk_free(chunk);
        return;
    }
    record(way->file, chunk->data, (size_t)n);
    came_in(side, n);
    if (way->free_us < now_us())
        way->free_us = now_us();
    if (rate)
        way->free_us += n * 1000000 / rate;
    *chunk = (struct chunk){.due_us = way->free_us + delay_ms * 1000LL, .size = (size_t)n};
    *way->last = chunk;
    way->last = &chunk->next;
    way->bytes += (size_t)n;
}

/* The time of the next chunk that is not due yet; INT64_MAX where none waits for its time. */
static int64_t pair_write(struct pair *pair, int side)
{
    struct way *way = &pair->ways[side];

    while (way->first) {
        struct chunk *chunk = way->first;

        if (chunk->due_us > now_us())
            return chunk->due_us;
        ssize_t n = write(pair->sockets[!side], chunk->data + chunk->sent, chunk->size - chunk->sent);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return INT64_MAX;
        if (n < 0) { /* nobody is there for what is held */
            pair_close(pair);
            return INT64_MAX;
        }
        chunk->sent += (size_t)n;
        way->bytes -= (size_t)n;
        if (chunk->sent < chunk->size)
            continue;
        way->first = chunk->next;
        if (!way->first)
            way->last = &way->first;
        chunk_free(chunk);
    }
    return INT64_MAX;
}

/* ---- commands ---- */

static void command(const char *line)
{
    if (strcmp(line, "count") == 0) {
        printf("did count %lld %lld\n", came[0], came[1]);
        fflush(stdout);
        return;
    }
    if (strcmp(line, "cut") == 0) {
        mode = CUT;
        for (int i = 0; i < PAIRS_MAX; i++)
            if (pairs[i].open)
                pair_close(&pairs[i]);
    } else if (strcmp(line, "stall") == 0) {
        mode = STALL;
    } else if (strcmp(line, "open") == 0) {
        mode = OPEN;
        for (int i = PAIRS_MAX; i-- > 0;)
            if (pairs[i].open && pairs[i].sockets[1] < 0)
                pair_lead(&pairs[i]);
    } else if (sscanf(line, "kill %lld %d", &kill_after, &kill_pid) != 2 &&
               sscanf(line, "delay %d", &delay_ms) != 1 && sscanf(line, "rate %lld", &rate) != 1) {
        fprintf(stderr, "relay: %s: no such command\n", line);
        exit(2);
    }
    printf("did %s\n", line);
    fflush(stdout);
}

static void read_commands(void)
{
    static char text[256];
    static size_t size;
    ssize_t n = read(commands, text + size, sizeof(text) - 1 - size);
    char *end;

    if (n <= 0)
        return;
    size += (size_t)n;
    text[size] = '\0';
    while ((end = strchr(text, '\n'))) {
        *end = '\0';
        command(text);
        size -= (size_t)(end + 1 - text);
        memmove(text, end + 1, size + 1);
    }
}

/* ---- the loop ---- */

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
    targets[n_targets].listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
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

/* What can go out goes out; -1 or how long until more can. */
static int pass_on(void)
{
    int64_t next_us = INT64_MAX, now = now_us();

    for (int i = 0; i < PAIRS_MAX && mode == OPEN; i++)
        for (int side = 0; side < 2 && pairs[i].open; side++) {
            int64_t due_us = pairs[i].sockets[1] >= 0 ? pair_write(&pairs[i], side) : INT64_MAX;

            if (due_us < next_us)
                next_us = due_us;
            if (pairs[i].open && pairs[i].ended[side] && !pairs[i].ways[side].first)
                pair_close(&pairs[i]);
        }
    return next_us == INT64_MAX ? -1 : next_us > now ? (int)((next_us - now + 999) / 1000) : 0;
}

static void turn(void)
{
    static struct pollfd polls[1 + TARGETS_MAX + PAIRS_MAX * 2];
    int n = 0, wait_ms = pass_on();

    polls[n++] = (struct pollfd){.fd = commands, .events = POLLIN};
    for (int i = 0; i < n_targets; i++)
        polls[n++] = (struct pollfd){.fd = targets[i].listener, .events = POLLIN};
    for (int i = 0; i < PAIRS_MAX; i++)
        for (int side = 0; side < 2; side++) {
            const struct way *to = &pairs[i].ways[!side];
            short events = reads(&pairs[i], side) ? POLLIN : 0;

            if (mode == OPEN && pairs[i].open && to->first && to->first->due_us <= now_us())
                events |= POLLOUT;
            polls[n++] = (struct pollfd){.fd = events ? pairs[i].sockets[side] : -1, .events = events};
        }
    if (poll(polls, (nfds_t)n, wait_ms) < 0 && errno != EINTR)
        fail("poll");
    for (int i = 0; i < PAIRS_MAX; i++)
        for (int side = 0; side < 2; side++)
            if ((polls[1 + n_targets + i * 2 + side].revents & ~POLLOUT) && reads(&pairs[i], side))
                pair_read(&pairs[i], side);
    for (int i = 0; i < n_targets; i++)
        if (polls[1 + i].revents)
            pair_open(i);
    if (polls[0].revents)
        read_commands();
}

int main(int argc, char **argv)
{
    int i = 1;

    signal(SIGPIPE, SIG_IGN);
    for (; i + 1 < argc && strncmp(argv[i], "--", 2) == 0; i += 2) {
        if (strcmp(argv[i], "--record") == 0)
            folder = argv[i + 1];
        else if (strcmp(argv[i], "--commands") == 0)
            commands = open(argv[i + 1], O_RDWR | O_NONBLOCK | O_CLOEXEC);
        else if (strcmp(argv[i], "--delay") == 0)
            delay_ms = atoi(argv[i + 1]);
        else
            break;
    }
    if (i >= argc || argv[i][0] == '-') {
        fprintf(stderr, "usage: relay [--record FOLDER] [--commands FIFO] [--delay MS] HOST:PORT...\n");
        return 2;
    }
    for (; i < argc; i++)
        target_open(argv[i]);
    announce();
    for (;;)
        turn();
}
