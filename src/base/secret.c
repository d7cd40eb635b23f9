#include "base/secret.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/assert.h"

/* Of the mapping: the kernel's smallest page is enough. */
#define MAPPED_BYTES 4096
_Static_assert(sizeof(struct secret) <= MAPPED_BYTES, "a secret fits into a page");

static struct secret *secret_take(void)
{
    void *page =
        mmap(NULL, MAPPED_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) return NULL;
    /* Best effort: neither is refused for a reason that should keep a node from starting. */
    (void)madvise(page, MAPPED_BYTES, MADV_DONTDUMP);
    (void)mlock(page, MAPPED_BYTES);
    return page;
}

void secret_put(struct secret *secret)
{
    if (secret == NULL) return;
    secret_wipe(secret, sizeof *secret);
    (void)munlock(secret, MAPPED_BYTES);
    (void)munmap(secret, MAPPED_BYTES);
}

void secret_wipe(void *data, size_t bytes)
{
    explicit_bzero(data, bytes);
}

/*
 * Where a file has an access control list, the bits of its group are the mask of that list: whoever
 * made the list has named the readers, as the init system does for the credentials of a service.
 */
static bool is_open_to_others(int fd, mode_t mode)
{
    if ((mode & S_IRWXO) != 0) return true;
    return (mode & S_IRWXG) != 0 && fgetxattr(fd, "system.posix_acl_access", NULL, 0) <= 0;
}

/* Up to `bytes_max` of the file; -errno. A pipe may give them in pieces. */
static ssize_t read_up_to(int fd, uint8_t *to, size_t bytes_max)
{
    size_t used = 0;
    while (used < bytes_max) {
        ssize_t got = read(fd, to + used, bytes_max - used);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return -errno;
        if (got == 0) break;
        used += (size_t)got;
    }
    return (ssize_t)used;
}

static size_t without_newline(const uint8_t *data, size_t bytes)
{
    if (bytes > 0 && data[bytes - 1] == '\n') bytes--;
    if (bytes > 0 && data[bytes - 1] == '\r') bytes--;
    return bytes;
}

static enum secret_fault read_open(int fd, struct secret *secret, int *err)
{
    struct stat stat;
    /* One byte more than fits, and the newline, tell a file that is too long. */
    uint8_t data[SECRET_BYTES_MAX + 3];
    if (fstat(fd, &stat) < 0) {
        *err = -errno;
        return SECRET_NOT_READABLE;
    }
    if (!S_ISREG(stat.st_mode) && !S_ISFIFO(stat.st_mode)) return SECRET_NO_FILE;
    if (is_open_to_others(fd, stat.st_mode)) return SECRET_OPEN_TO_OTHERS;
    ssize_t bytes = read_up_to(fd, data, sizeof data);
    if (bytes < 0) {
        *err = (int)bytes;
        return SECRET_NOT_READABLE;
    }
    size_t kept = without_newline(data, (size_t)bytes);
    enum secret_fault fault = SECRET_NO_FAULT;
    if (kept == 0) fault = SECRET_EMPTY;
    if (kept > SECRET_BYTES_MAX) fault = SECRET_TOO_LONG;
    if (fault == SECRET_NO_FAULT) {
        secret->bytes = (uint32_t)kept;
        memcpy(secret->data, data, kept);
    }
    secret_wipe(data, sizeof data);
    return fault;
}

enum secret_fault secret_read(const char *path, struct secret **out, int *err)
{
    *out = NULL;
    *err = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0) {
        *err = -errno;
        return SECRET_NOT_READABLE;
    }
    struct secret *secret = secret_take();
    enum secret_fault fault = secret == NULL ? SECRET_NO_MEMORY : read_open(fd, secret, err);
    close(fd);
    if (fault == SECRET_NO_FAULT)
        *out = secret;
    else
        secret_put(secret);
    return fault;
}

/*
 * Every byte of the room is compared, given or not: the bytes behind a shorter text are zeros, and
 * the lengths are one more difference. Nothing branches on what is compared.
 */
bool secret_equals(const struct secret *secret, struct bytes given)
{
    uint8_t padded[SECRET_BYTES_MAX] = {0};
    uint32_t difference = secret->bytes ^ (uint32_t)given.size;
    ASSERT(given.size <= SECRET_BYTES_MAX);
    if (given.size > 0) memcpy(padded, given.data, given.size);
    for (size_t i = 0; i < SECRET_BYTES_MAX; i++) {
        difference |= (uint32_t)(secret->data[i] ^ padded[i]);
        /* The compiler may not conclude that more bytes cannot change the answer. */
        __asm__ volatile("" : "+r"(difference));
    }
    secret_wipe(padded, sizeof padded);
    return difference == 0;
}
