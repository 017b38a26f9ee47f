/* What load client and agent share: ttrpc frame headers, protobuf varints, unix sockets.
 *
 * A frame is a header of ten bytes (body length, stream id: 32 bits big endian; type; flags) and its body. */
#ifndef BENCH_WIRE_H
#define BENCH_WIRE_H

#include <arpa/inet.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { HEADER = 10, TYPE_REQUEST = 1, TYPE_RESPONSE = 2 };

static inline uint32_t get32(const uint8_t *at)
{
    uint32_t value;
    memcpy(&value, at, sizeof value);
    return ntohl(value);
}

static inline void put32(uint8_t *at, uint32_t value)
{
    value = htonl(value);
    memcpy(at, &value, sizeof value);
}

static inline void put_header(uint8_t *at, uint32_t length, uint32_t stream, uint8_t type)
{
    put32(at, length);
    put32(at + 4, stream);
    at[8] = type;
    at[9] = 0;
}

static inline uint8_t *put_varint(uint8_t *at, uint64_t value)
{
    for (; value >= 128; value >>= 7)
        *at++ = (uint8_t)(value | 128);
    *at++ = (uint8_t)value;
    return at;
}

static inline const uint8_t *get_varint(const uint8_t *at, uint64_t *value)
{
    int shift = 0;
    *value = 0;
    do {
        *value |= (uint64_t)(*at & 127) << shift;
        shift += 7;
    } while (*at++ & 128);
    return at;
}

/* A length-delimited field: strings, bytes, messages. */
static inline uint8_t *put_bytes(uint8_t *at, int field, const void *data, size_t length)
{
    at = put_varint(at, (uint64_t)field << 3 | 2);
    at = put_varint(at, length);
    memcpy(at, data, length);
    return at + length;
}

static inline uint8_t *put_number(uint8_t *at, int field, uint64_t value)
{
    return put_varint(put_varint(at, (uint64_t)field << 3), value);
}

static inline void die(const char *what)
{
    perror(what);
    exit(1);
}

static inline struct sockaddr_un unix_address(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path) {
        fprintf(stderr, "socket path too long: %s\n", path);
        exit(1);
    }
    strcpy(address.sun_path, path);
    return address;
}

static inline int unix_connect(const char *path)
{
    struct sockaddr_un address = unix_address(path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address))
        die(path);
    return fd;
}

static inline int unix_listen(const char *path)
{
    struct sockaddr_un address = unix_address(path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    unlink(path);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) || listen(fd, 1024))
        die(path);
    return fd;
}

#endif
