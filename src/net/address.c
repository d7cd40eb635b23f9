#include "net/address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>

/* Longest host that is read: an IPv6 address with its scope. */
#define HOST_BYTES_MAX (INET6_ADDRSTRLEN + 1 + IF_NAMESIZE)

struct address address_loopback(uint16_t port)
{
    struct address address = {0};
    address.v4.sin_family = AF_INET;
    address.v4.sin_port = htons(port);
    address.v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

/* Reads 1 to 5 digits up to the end of the text. */
static int port_parse(const char *text, uint16_t *port)
{
    unsigned value = 0;
    if (*text == '\0') return -EINVAL;
    for (; *text != '\0'; text++) {
        if (*text < '0' || *text > '9') return -EINVAL;
        value = value * 10 + (unsigned)(*text - '0');
        if (value > UINT16_MAX) return -EINVAL;
    }
    *port = (uint16_t)value;
    return 0;
}

static int v4_parse(struct address *address, const char *host)
{
    *address = (struct address){0};
    address->v4.sin_family = AF_INET;
    return inet_pton(AF_INET, host, &address->v4.sin_addr) == 1 ? 0 : -EINVAL;
}

/* Reads an IPv6 address; "%NAME" or "%NUMBER" at its end is the scope. */
static int v6_parse(struct address *address, char *host)
{
    *address = (struct address){0};
    address->v6.sin6_family = AF_INET6;
    char *scope = strchr(host, '%');
    if (scope != NULL) {
        *scope++ = '\0';
        uint16_t number;
        unsigned index = if_nametoindex(scope);
        if (index == 0 && port_parse(scope, &number) == 0) index = number;
        if (index == 0) return -EINVAL;
        address->v6.sin6_scope_id = index;
    }
    return inet_pton(AF_INET6, host, &address->v6.sin6_addr) == 1 ? 0 : -EINVAL;
}

static int host_parse(struct address *address, char *host, bool in_brackets)
{
    if (in_brackets) return v6_parse(address, host);
    if (host[0] == '\0' || strcmp(host, "localhost") == 0) {
        *address = address_loopback(0);
        return 0;
    }
    return strchr(host, ':') != NULL ? v6_parse(address, host) : v4_parse(address, host);
}

/*
 * Splits `text` into a host, which may be empty, and what follows its ':', or NULL. A host with
 * more than one ':' outside of brackets is an IPv6 address without a port.
 */
static int split(const char *text, const char **host, size_t *host_bytes, const char **port)
{
    if (*text == '[') {
        const char *end = strchr(text, ']');
        if (end == NULL || (end[1] != '\0' && end[1] != ':')) return -EINVAL;
        *host = text + 1;
        *host_bytes = (size_t)(end - text) - 1;
        *port = end[1] == ':' ? end + 2 : NULL;
        return *host_bytes > 0 ? 0 : -EINVAL;
    }
    const char *colon = strchr(text, ':');
    bool is_v6 = colon != NULL && strchr(colon + 1, ':') != NULL;
    *host = text;
    *port = colon != NULL && !is_v6 ? colon + 1 : NULL;
    *host_bytes = *port != NULL ? (size_t)(colon - text) : strlen(text);
    return text[0] != '\0' ? 0 : -EINVAL;
}

int address_parse(struct address *address, const char *text, uint16_t port_default)
{
    const char *host_start;
    const char *port_start;
    size_t host_bytes;
    int err = split(text, &host_start, &host_bytes, &port_start);
    if (err < 0) return err;

    char host[HOST_BYTES_MAX + 1];
    if (host_bytes > HOST_BYTES_MAX) return -EINVAL;
    memcpy(host, host_start, host_bytes);
    host[host_bytes] = '\0';

    uint16_t port = port_default;
    if (port_start != NULL) err = port_parse(port_start, &port);
    if (err < 0) return err;
    err = host_parse(address, host, *text == '[');
    if (err < 0) return err;
    address_set_port(address, port);
    return 0;
}

static bool is_v6(const struct address *address)
{
    return address->any.sa_family == AF_INET6;
}

const char *address_format(const struct address *address, char *text)
{
    char host[INET6_ADDRSTRLEN];
    if (!is_v6(address)) {
        inet_ntop(AF_INET, &address->v4.sin_addr, host, sizeof host);
        snprintf(text, ADDRESS_TEXT_BYTES, "%s:%u", host, address_port(address));
        return text;
    }
    inet_ntop(AF_INET6, &address->v6.sin6_addr, host, sizeof host);
    char scope[IF_NAMESIZE + 1] = "";
    if (address->v6.sin6_scope_id != 0) {
        scope[0] = '%';
        if (if_indextoname(address->v6.sin6_scope_id, scope + 1) == NULL)
            snprintf(scope + 1, sizeof scope - 1, "%u", address->v6.sin6_scope_id);
    }
    snprintf(text, ADDRESS_TEXT_BYTES, "[%s%s]:%u", host, scope, address_port(address));
    return text;
}

uint16_t address_port(const struct address *address)
{
    return ntohs(is_v6(address) ? address->v6.sin6_port : address->v4.sin_port);
}

void address_set_port(struct address *address, uint16_t port)
{
    if (is_v6(address))
        address->v6.sin6_port = htons(port);
    else
        address->v4.sin_port = htons(port);
}

bool address_is_loopback(const struct address *address)
{
    if (!is_v6(address)) return ntohl(address->v4.sin_addr.s_addr) >> 24 == IN_LOOPBACKNET;
    const struct in6_addr *host = &address->v6.sin6_addr;
    if (IN6_IS_ADDR_V4MAPPED(host)) return host->s6_addr[12] == IN_LOOPBACKNET;
    return IN6_IS_ADDR_LOOPBACK(host);
}

bool address_equal(const struct address *a, const struct address *b)
{
    if (a->any.sa_family != b->any.sa_family) return false;
    if (address_port(a) != address_port(b)) return false;
    if (!is_v6(a)) return a->v4.sin_addr.s_addr == b->v4.sin_addr.s_addr;
    return a->v6.sin6_scope_id == b->v6.sin6_scope_id &&
           memcmp(&a->v6.sin6_addr, &b->v6.sin6_addr, sizeof a->v6.sin6_addr) == 0;
}

socklen_t address_bytes(const struct address *address)
{
    return is_v6(address) ? sizeof address->v6 : sizeof address->v4;
}
