/* link_zap.c - the thread that says who may connect.
 *
 * The idea: one request, one answer, and no is what every doubt comes to. libzmq asks (RFC 27);
 * with ZMQ_ZAP_ENFORCE_DOMAIN on the servers, nobody connects where nobody answers.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <proto/base/check.h>
#include <proto/link.h>

#define ZAP_ENDPOINT "inproc://zeromq.zap.01"
#define ZAP_DOMAIN   "westlight"
#define ZAP_FRAMES   7 /* version, request, domain, address, routing id, mechanism, key */

struct link_zap {
    pthread_t thread;
    void *socket;
    link_allow *allow;
    void *user;
    int stop_fd;
};

static bool frame_is(zmq_msg_t *frame, const char *text)
{
    return zmq_msg_size(frame) == strlen(text) && !memcmp(zmq_msg_data(frame), text, strlen(text));
}

static int reply_part(void *socket, const void *data, size_t size, bool more)
{
    int r;

    do
        r = zmq_send(socket, data, size, more ? ZMQ_SNDMORE : 0);
    while (r < 0 && errno == EINTR);
    return r < 0 ? -errno : 0;
}

/* `user` NULL: refused. A REP socket must answer, whatever it was asked. */
static int zap_reply(void *socket, zmq_msg_t *request, const char *user)
{
    const char *status = user ? "200" : "400", *text = user ? "OK" : "not enrolled";
    const void *id = request ? zmq_msg_data(request) : "";
    size_t id_size = request ? zmq_msg_size(request) : 0;
    int r = reply_part(socket, "1.0", 3, true);

    if (r == 0)
        r = reply_part(socket, id, id_size, true);
    if (r == 0)
        r = reply_part(socket, status, 3, true);
    if (r == 0)
        r = reply_part(socket, text, strlen(text), true);
    if (r == 0)
        r = reply_part(socket, user ? user : "", user ? strlen(user) : 0, true);
    if (r == 0)
        r = reply_part(socket, "", 0, false);
    return r;
}

static bool zap_allows(const struct link_zap *zap, zmq_msg_t *frames, size_t n, char user[65])
{
    struct link_key key;

    if (n != ZAP_FRAMES || !frame_is(&frames[0], "1.0") || !frame_is(&frames[2], ZAP_DOMAIN) ||
        !frame_is(&frames[5], "CURVE") || zmq_msg_size(&frames[6]) != LINK_KEY_BYTES)
        return false;
    memcpy(key.bytes, zmq_msg_data(&frames[6]), LINK_KEY_BYTES);
    if (zap->allow(zap->user, &key) != 0)
        return false;
    hex_encode(key.bytes, LINK_KEY_BYTES, user);
    return true;
}

static int zap_frame(void *socket, zmq_msg_t *ret_frame)
{
    int r;

    zmq_msg_init(ret_frame);
    do
        r = zmq_msg_recv(ret_frame, socket, ZMQ_DONTWAIT);
    while (r < 0 && errno == EINTR);
    if (r >= 0)
        return 0;

    r = errno == EAGAIN ? LINK_E_AGAIN : -errno;
    zmq_msg_close(ret_frame);
    return r;
}

/* One request, read to its end; LINK_E_AGAIN where there is none. Of more frames than a request
 * has, the last is written over. */
static int zap_answer(struct link_zap *zap)
{
    zmq_msg_t frames[ZAP_FRAMES + 1];
    size_t n = 0;
    char user[65];
    bool more = true, allowed;
    int r = 0;

    while (more && r == 0) {
        if (n > ZAP_FRAMES)
            zmq_msg_close(&frames[--n]);
        r = zap_frame(zap->socket, &frames[n]);
        if (r == 0)
            more = zmq_msg_more(&frames[n++]);
    }
    if (r == 0) {
        allowed = zap_allows(zap, frames, n, user);
        r = zap_reply(zap->socket, n > 1 ? &frames[1] : NULL, allowed ? user : NULL);
    }
    while (n > 0)
        zmq_msg_close(&frames[--n]);
    return r;
}

static void *zap_run(void *data)
{
    struct link_zap *zap = data;
    zmq_pollitem_t items[] = {
        {.socket = zap->socket, .events = ZMQ_POLLIN},
        {.fd = zap->stop_fd, .events = ZMQ_POLLIN},
    };
    int r = 0;

    while (r >= 0) {
        if (zmq_poll(items, 2, -1) < 0 && errno != EINTR)
            break;
        if (items[1].revents)
            break;
        do
            r = zap_answer(zap);
        while (r == 0);
    }
    zmq_close(zap->socket);
    return NULL;
}

static int zap_start(struct link_zap *zap, void *context)
{
    const int linger_ms = 0;
    int r = 0;

    zap->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (zap->stop_fd < 0)
        return -errno;
    zap->socket = zmq_socket(context, ZMQ_REP);
    if (!zap->socket)
        return -errno;
    if (zmq_setsockopt(zap->socket, ZMQ_LINGER, &linger_ms, sizeof(linger_ms)) < 0 ||
        zmq_bind(zap->socket, ZAP_ENDPOINT) < 0)
        r = -errno;
    if (r == 0)
        r = -pthread_create(&zap->thread, NULL, zap_run, zap);
    if (r < 0)
        zmq_close(zap->socket);
    return r;
}

int link_zap_new(void *context, link_allow *allow, void *user, struct link_zap **ret_zap)
{
    struct link_zap *zap = calloc(1, sizeof(*zap));
    int r;

    if (!zap)
        return -ENOMEM;
    *zap = (struct link_zap){.allow = allow, .user = user, .stop_fd = -1};
    r = zap_start(zap, context);
    if (r < 0) {
        closep(&zap->stop_fd);
        free(zap);
        return r;
    }
    *ret_zap = zap;
    return 0;
}

void link_zap_free(struct link_zap *zap)
{
    if (!zap)
        return;
    CHECK(eventfd_write(zap->stop_fd, 1) == 0);
    CHECK(pthread_join(zap->thread, NULL) == 0);
    close(zap->stop_fd);
    free(zap);
}
