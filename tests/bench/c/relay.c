/* Both hops compiled: the bound for the design of caa/datapath. One thread, one epoll, TLS on the descriptor, bytes
 * passed as they come; it looks at nothing and edits nothing.
 *
 *   relay worker PORT CERTIFICATES FOLDER PODS    dials PODS links to 127.0.0.1:PORT, then listens on FOLDER/<i>.sock
 *   relay guest  PORT CERTIFICATES AGENT_SOCKET   listens on 127.0.0.1:PORT
 *
 * CERTIFICATES is a folder with ca.pem, client.pem, client.key, server.pem, server.key; the server is "podvm".
 * Prints READY when it listens. */
#define _GNU_SOURCE
#include "wire.h"

#include <fcntl.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <sys/epoll.h>

enum { BUFFER = 256 << 10, RECORD = 16384 };

struct end {
    int fd, listens;
    SSL *tls;          /* NULL on a unix socket */
    struct end *peer;  /* for a worker's listener: its link, until a shim is there */
    uint8_t *pending;  /* what this end could not take at once */
    size_t length, sent;
    uint32_t events;
};

static uint8_t buffer[BUFFER];
static int epoll;
static int is_guest;
static SSL_CTX *context;
static struct sockaddr_in pod_vm;
static const char *agent_socket;

static void watch(struct end *e, int operation, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = e};
    e->events = events;
    if (epoll_ctl(epoll, operation, e->fd, &event))
        die("epoll_ctl");
}

static struct end *make_end(int fd, SSL *tls)
{
    struct end *e = calloc(1, sizeof *e);
    e->fd = fd;
    e->tls = tls;
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    return e;
}

static void join(struct end *a, struct end *b)
{
    a->peer = b;
    b->peer = a;
    watch(a, EPOLL_CTL_ADD, EPOLLIN);
    watch(b, EPOLL_CTL_ADD, EPOLLIN);
}

/* Bytes, 0 at the end of the stream, -1 for "later". */
static ssize_t take(struct end *e, uint8_t *at, size_t room)
{
    if (!e->tls) {
        ssize_t n = recv(e->fd, at, room, 0);
        return n >= 0 ? n : errno == EAGAIN ? -1 : 0;
    }
    int n = SSL_read(e->tls, at, (int)room);
    if (n > 0)
        return n;
    int why = SSL_get_error(e->tls, n);
    return why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE ? -1 : 0;
}

/* Bytes that were taken, 0 for "later", -1 when the stream is gone. */
static ssize_t give(struct end *e, const uint8_t *data, size_t length)
{
    if (!e->tls) {
        ssize_t n = send(e->fd, data, length, MSG_NOSIGNAL);
        return n >= 0 ? n : errno == EAGAIN ? 0 : -1;
    }
    int n = SSL_write(e->tls, data, (int)length);
    if (n > 0)
        return n;
    int why = SSL_get_error(e->tls, n);
    return why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE ? 0 : -1;
}

static void close_end(struct end *e)
{
    if (e->tls)
        SSL_free(e->tls);
    close(e->fd);
    free(e->pending);
    e->pending = NULL;
    e->fd = -1; /* freed never: events of this round may still name it, and a run makes few */
}

static void close_pair(struct end *e)
{
    close_end(e->peer);
    close_end(e);
}

static void readable(struct end *e)
{
    ssize_t n = take(e, buffer, BUFFER), more;
    if (n == 0)
        close_pair(e);
    if (n <= 0)
        return;
    /* a full record means that there is more, and one write of it is cheaper than two */
    while (e->tls && n % RECORD == 0 && n + RECORD <= BUFFER && (more = take(e, buffer + n, BUFFER - (size_t)n)) > 0)
        n += more;
    ssize_t taken = give(e->peer, buffer, (size_t)n);
    if (taken < 0) {
        close_pair(e);
    } else if (taken < n) {
        struct end *slow = e->peer;
        slow->length = (size_t)(n - taken);
        slow->sent = 0;
        slow->pending = malloc(slow->length);
        memcpy(slow->pending, buffer + taken, slow->length);
        watch(e, EPOLL_CTL_MOD, e->events & ~(uint32_t)EPOLLIN);
        watch(slow, EPOLL_CTL_MOD, slow->events | EPOLLOUT);
    }
}

static void writable(struct end *e)
{
    ssize_t taken = give(e, e->pending + e->sent, e->length - e->sent);
    if (taken < 0) {
        close_pair(e);
        return;
    }
    e->sent += (size_t)taken;
    if (e->sent == e->length) {
        free(e->pending);
        e->pending = NULL;
        watch(e, EPOLL_CTL_MOD, e->events & ~(uint32_t)EPOLLOUT);
        watch(e->peer, EPOLL_CTL_MOD, e->peer->events | EPOLLIN);
    }
}

static void no_delay(int fd)
{
    int one = 1; /* before the handshake: with no tickets sent, the first request would wait 40 ms */
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

static struct end *dial(void)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(fd, (struct sockaddr *)&pod_vm, sizeof pod_vm))
        die("dial");
    no_delay(fd);
    SSL *tls = SSL_new(context);
    SSL_set_fd(tls, fd);
    SSL_set_tlsext_host_name(tls, "podvm");
    SSL_set1_host(tls, "podvm");
    if (SSL_connect(tls) <= 0) {
        ERR_print_errors_fp(stderr);
        exit(1);
    }
    return make_end(fd, tls);
}

static void accept_link(struct end *listener)
{
    int fd = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0)
        return;
    no_delay(fd);
    SSL *tls = SSL_new(context);
    SSL_set_fd(tls, fd);
    if (SSL_accept(tls) <= 0) {
        SSL_free(tls);
        close(fd);
        return;
    }
    join(make_end(fd, tls), make_end(unix_connect(agent_socket), NULL));
}

static void accept_shim(struct end *listener)
{
    int fd = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0)
        return;
    join(make_end(fd, NULL), listener->peer ? listener->peer : dial());
    listener->peer = NULL;
}

static void listen_on(int fd, struct end *link)
{
    struct end *e = make_end(fd, NULL);
    e->listens = 1;
    e->peer = link;
    watch(e, EPOLL_CTL_ADD, EPOLLIN);
}

static void load_identity(const char *folder, const char *name)
{
    char path[512];
    context = SSL_CTX_new(is_guest ? TLS_server_method() : TLS_client_method());
    snprintf(path, sizeof path, "%s/%s.pem", folder, name);
    int ok = SSL_CTX_use_certificate_chain_file(context, path);
    snprintf(path, sizeof path, "%s/%s.key", folder, name);
    ok = ok && SSL_CTX_use_PrivateKey_file(context, path, SSL_FILETYPE_PEM);
    snprintf(path, sizeof path, "%s/ca.pem", folder);
    if (!ok || !SSL_CTX_load_verify_locations(context, path, NULL)) {
        ERR_print_errors_fp(stderr);
        exit(1);
    }
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER | (is_guest ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0), NULL);
    SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_AUTO_RETRY);
    SSL_CTX_set_num_tickets(context, 0);
}

static void start_guest(void)
{
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&pod_vm, sizeof pod_vm) || listen(fd, 512))
        die("listen");
    listen_on(fd, NULL);
}

static void start_worker(const char *folder, int pods)
{
    for (int i = 0; i < pods; i++) {
        char path[108];
        snprintf(path, sizeof path, "%s/%d.sock", folder, i);
        listen_on(unix_listen(path), dial());
    }
}

static void handle(struct end *e, uint32_t events)
{
    if (e->fd < 0)
        return;
    if (e->listens) {
        is_guest ? accept_link(e) : accept_shim(e);
        return;
    }
    if (events & EPOLLOUT)
        writable(e);
    if (e->fd >= 0 && events & (EPOLLIN | EPOLLHUP | EPOLLERR))
        readable(e);
}

int main(int argc, char **argv)
{
    is_guest = argc == 5 && strcmp(argv[1], "guest") == 0;
    if (!is_guest && !(argc == 6 && strcmp(argv[1], "worker") == 0)) {
        fprintf(stderr, "usage: relay worker PORT CERTIFICATES FOLDER PODS | relay guest PORT CERTIFICATES AGENT_SOCKET\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    pod_vm = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[2]))};
    pod_vm.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    load_identity(argv[3], is_guest ? "server" : "client");
    agent_socket = argv[4];
    if (is_guest)
        start_guest();
    else
        start_worker(argv[4], atoi(argv[5]));
    puts("READY");
    fflush(stdout);
    struct epoll_event ready[64];
    for (;;) {
        int count = epoll_wait(epoll, ready, 64, -1);
        for (int i = 0; i < count; i++)
            handle(ready[i].data.ptr, ready[i].events);
    }
}
