/* Load client: one connection, a fixed number of calls in flight, latencies of those that began in the window.
 *
 *   load SOCKET check|read BYTES IN_FLIGHT WARM_UP_SECONDS SECONDS
 *
 * Prints one JSON object: calls of the whole run (`total`), calls of the window, p50 and p99 in microseconds,
 * calls a second, megabytes of answers a second. Any error answer or time-out of 30 s ends it with status 1. */
#define _GNU_SOURCE
#include "wire.h"

#include <poll.h>
#include <time.h>

enum { SLOTS = 1 << 12, MAX_SAMPLES = 1 << 24 };

static uint8_t request[1024];
static size_t request_length;
static uint32_t next_stream = 1;
static double begun[SLOTS];
static float *samples;
static size_t sample_count, total;
static double answer_bytes;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void make_request(const char *mode, size_t bytes)
{
    static const char container[] = "c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00";
    int is_read = strcmp(mode, "read") == 0;
    const char *service = is_read ? "grpc.AgentService" : "grpc.Health";
    const char *method = is_read ? "ReadStdout" : "Check";
    uint8_t body[256], *end = body, *at = request + HEADER;
    if (is_read) {
        end = put_bytes(end, 1, container, sizeof container - 1);
        end = put_bytes(end, 2, container, sizeof container - 1);
        end = put_number(end, 3, bytes);
    }
    at = put_bytes(at, 1, service, strlen(service));
    at = put_bytes(at, 2, method, strlen(method));
    if (end > body)
        at = put_bytes(at, 3, body, (size_t)(end - body));
    at = put_number(at, 4, 60000000000ull);
    request_length = (size_t)(at - request);
    put_header(request, (uint32_t)(request_length - HEADER), 0, TYPE_REQUEST);
}

static void call(int fd)
{
    uint32_t stream = next_stream;
    size_t sent = 0;
    next_stream += 2;
    begun[(stream >> 1) % SLOTS] = now();
    put32(request + 4, stream);
    while (sent < request_length) {
        ssize_t n = write(fd, request + sent, request_length - sent);
        if (n < 0 && errno != EINTR)
            die("write");
        sent += n > 0 ? (size_t)n : 0;
    }
}

/* Counts one whole answer. Field 1 of a response is its status: absent, or empty for OK. */
static void answered(const uint8_t *frame, uint32_t length, double from, double until)
{
    double end = now(), start = begun[(get32(frame + 4) >> 1) % SLOTS];
    if (frame[8] != TYPE_RESPONSE || (length > 1 && frame[HEADER] == 0x0a && frame[HEADER + 1] != 0)) {
        fprintf(stderr, "error answer on stream %u\n", get32(frame + 4));
        exit(1);
    }
    total++;
    if (start >= from && start < until && sample_count < MAX_SAMPLES) {
        samples[sample_count++] = (float)((end - start) * 1e6);
        answer_bytes += length;
    }
}

static void run(int fd, int in_flight, double from, double until)
{
    size_t capacity = 8 << 20, have = 0;
    uint8_t *buffer = malloc(capacity);
    for (int i = 0; i < in_flight; i++)
        call(fd);
    while (in_flight) {
        struct pollfd wait = {.fd = fd, .events = POLLIN};
        if (poll(&wait, 1, 30000) == 0) {
            fprintf(stderr, "no answer for 30 s, %d calls in flight\n", in_flight);
            exit(1);
        }
        ssize_t n = recv(fd, buffer + have, capacity - have, 0);
        if (n <= 0)
            die("the connection closed");
        have += (size_t)n;
        size_t at = 0;
        while (have - at >= HEADER && have - at >= HEADER + (size_t)get32(buffer + at)) {
            uint32_t length = get32(buffer + at);
            answered(buffer + at, length, from, until);
            at += HEADER + length;
            if (now() < until)
                call(fd);
            else
                in_flight--;
        }
        memmove(buffer, buffer + at, have - at);
        have -= at;
    }
    free(buffer);
}

static int by_value(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static double quantile(double q)
{
    return sample_count ? samples[(size_t)((double)(sample_count - 1) * q)] : 0;
}

int main(int argc, char **argv)
{
    if (argc != 7 || atoi(argv[4]) < 1 || atoi(argv[4]) > SLOTS / 2) {
        fprintf(stderr, "usage: load SOCKET check|read BYTES IN_FLIGHT WARM_UP_SECONDS SECONDS\n");
        return 2;
    }
    double seconds = atof(argv[6]);
    samples = malloc(MAX_SAMPLES * sizeof *samples);
    make_request(argv[2], (size_t)atol(argv[3]));
    int fd = unix_connect(argv[1]);
    double from = now() + atof(argv[5]);
    run(fd, atoi(argv[4]), from, from + seconds);
    qsort(samples, sample_count, sizeof *samples, by_value);
    printf("{\"total\": %zu, \"calls\": %zu, \"p50_us\": %.2f, \"p99_us\": %.2f, \"calls_s\": %.1f, \"mb_s\": %.3f}\n", total,
           sample_count, quantile(.5), quantile(.99), (double)sample_count / seconds, answer_bytes / seconds / 1e6);
    return 0;
}
