/* Agent: answers Check, ReadStdout with as many bytes as asked for, anything else with an empty answer.
 *
 *   agent SOCKET
 *
 * One thread, answers ready before they are asked for: it costs next to nothing. */
#define _GNU_SOURCE
#include "wire.h"

#include <signal.h>
#include <sys/epoll.h>
#include <sys/uio.h>

enum { MAX_ANSWER = 4 << 20 };

struct connection {
    int fd;
    uint8_t *buffer;
    size_t have, capacity;
};

struct slice {
    const uint8_t *data;
    uint64_t length;
};

static uint8_t *output; /* what every ReadStdout returns */

/* Finds a string field and a number field of a message; either may be absent. */
static void find(struct slice message, int string_field, struct slice *string, int number_field, uint64_t *number)
{
    const uint8_t *at = message.data, *end = at + message.length;
    while (at < end) {
        uint64_t tag, value;
        at = get_varint(at, &tag);
        at = get_varint(at, &value);
        if ((tag & 7) == 2) {
            if ((int)(tag >> 3) == string_field)
                *string = (struct slice){at, value};
            at += value;
        } else if ((int)(tag >> 3) == number_field) {
            *number = value;
        }
    }
}

static int is(struct slice s, const char *word)
{
    return s.length == strlen(word) && memcmp(s.data, word, s.length) == 0;
}

static void write_all(int fd, struct iovec *parts, int count)
{
    while (count) {
        ssize_t n = writev(fd, parts, count);
        if (n < 0) {
            if (errno == EINTR)
                continue;
            return;
        }
        for (; count && (size_t)n >= parts->iov_len; parts++, count--)
            n -= (ssize_t)parts->iov_len;
        if (count) {
            parts->iov_base = (char *)parts->iov_base + n;
            parts->iov_len -= (size_t)n;
        }
    }
}

/* Response{payload: ReadStreamResponse{data}}: the heads of both, then the bytes from `output`. */
static size_t read_answer(uint8_t *at, struct slice payload, uint64_t *length)
{
    struct slice ignored = {0};
    uint8_t head[16], *end = head, *start = at;
    *length = 0;
    find(payload, 0, &ignored, 3, length);
    if (*length > MAX_ANSWER - 64)
        *length = MAX_ANSWER - 64;
    end = put_varint(put_varint(end, 1 << 3 | 2), *length);
    at = put_varint(at, 2 << 3 | 2);
    at = put_varint(at, (uint64_t)(end - head) + *length);
    memcpy(at, head, (size_t)(end - head));
    return (size_t)(at + (end - head) - start);
}

static void answer(int fd, const uint8_t *frame, uint32_t length)
{
    static const uint8_t serving[] = {2 << 3 | 2, 2, 1 << 3, 1}; /* Response{payload: HealthCheckResponse{SERVING}} */
    struct slice request = {frame + HEADER, length}, method = {0}, payload = {0};
    uint64_t ignored = 0, data = 0;
    uint8_t head[64];
    size_t body = 0;
    find(request, 2, &method, 0, &ignored);
    find(request, 3, &payload, 0, &ignored);
    if (is(method, "ReadStdout"))
        body = read_answer(head + HEADER, payload, &data);
    else if (is(method, "Check"))
        body = sizeof serving, memcpy(head + HEADER, serving, sizeof serving);
    put_header(head, (uint32_t)(body + data), get32(frame + 4), TYPE_RESPONSE);
    struct iovec parts[2] = {{head, HEADER + body}, {output, data}};
    write_all(fd, parts, data ? 2 : 1);
}

static void drop(struct connection *c)
{
    close(c->fd);
    free(c->buffer);
    free(c);
}

static void readable(struct connection *c)
{
    size_t at = 0;
    if (c->have == c->capacity)
        c->buffer = realloc(c->buffer, c->capacity *= 2);
    ssize_t n = recv(c->fd, c->buffer + c->have, c->capacity - c->have, 0);
    if (n <= 0) {
        drop(c);
        return;
    }
    c->have += (size_t)n;
    while (c->have - at >= HEADER && c->have - at >= HEADER + (size_t)get32(c->buffer + at)) {
        answer(c->fd, c->buffer + at, get32(c->buffer + at));
        at += HEADER + get32(c->buffer + at);
    }
    memmove(c->buffer, c->buffer + at, c->have - at);
    c->have -= at;
}

static void accept_one(int epoll, int listener)
{
    struct connection *c = calloc(1, sizeof *c);
    c->fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    c->capacity = 4096;
    c->buffer = malloc(c->capacity);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    if (c->fd < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &event))
        drop(c);
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: agent SOCKET\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    output = malloc(MAX_ANSWER);
    for (int i = 0; i < MAX_ANSWER; i++)
        output[i] = (uint8_t)(i * 7 + (i >> 8));
    int listener = unix_listen(argv[1]), epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL}, ready[64];
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int count = epoll_wait(epoll, ready, 64, -1);
        for (int i = 0; i < count; i++) {
            if (ready[i].data.ptr)
                readable(ready[i].data.ptr);
            else
                accept_one(epoll, listener);
        }
    }
}
