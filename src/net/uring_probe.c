#include "net/uring_probe.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/bytes.h"

/* Enough for every ring of a large machine; 64 KiB, an old default, is not enough for one. */
#define MEMLOCK_BYTES_ENOUGH (8 * MIB)

#define FEATURES(X)                                                                                \
    X(URING_DEFER_TASKRUN, "defer_taskrun")                                                        \
    X(URING_RING_FD, "ring_fd")                                                                    \
    X(URING_MSG_RING, "msg_ring")                                                                  \
    X(URING_NO_IOWAIT, "no_iowait")                                                                \
    X(URING_RECV_BUNDLE, "recv_bundle")                                                            \
    X(URING_SEND_ZC, "send_zc")                                                                    \
    X(URING_UDP_GRO, "udp_gro")

#define FEATURE_BIT(bit, name) bit,
static const enum uring_feature feature_bits[] = {FEATURES(FEATURE_BIT)};

/* As --io-features spells it. */
static const char *feature_name(enum uring_feature feature)
{
    switch (feature) {
#define FEATURE_CASE(bit, name)                                                                    \
    case bit: return name;
        FEATURES(FEATURE_CASE)
    }
    return "unknown";
}

const char *uring_feature_names(void)
{
#define FEATURE_TEXT(bit, name) name ", "
    return FEATURES(FEATURE_TEXT) "none, all";
}

/* The bits that a name stands for; 0 where there is no such name. */
static uint32_t bits_of(const char *name, size_t bytes)
{
    for (size_t i = 0; i < ARRAY_COUNT(feature_bits); i++) {
        const char *known = feature_name(feature_bits[i]);
        if (strlen(known) == bytes && memcmp(known, name, bytes) == 0) return feature_bits[i];
    }
    return 0;
}

static uint32_t bits_all(void)
{
    uint32_t all = 0;
    for (size_t i = 0; i < ARRAY_COUNT(feature_bits); i++) all |= feature_bits[i];
    return all;
}

static bool word_is(const char *word, size_t bytes, const char *expected)
{
    return strlen(expected) == bytes && memcmp(word, expected, bytes) == 0;
}

/* Applies one word of the list, which has no comma. */
static bool word_apply(const char *word, size_t bytes, uint32_t *features)
{
    if (word_is(word, bytes, "none")) {
        *features = 0;
        return true;
    }
    if (word_is(word, bytes, "all")) {
        *features = bits_all();
        return true;
    }
    bool removes = word[0] == '-';
    bool is_signed = removes || word[0] == '+';
    uint32_t bits = bits_of(word + is_signed, bytes - is_signed);
    if (removes)
        *features &= ~bits;
    else
        *features |= bits;
    return bits != 0;
}

int uring_features_parse(const char *text, uint32_t *features, const char **unknown,
                         size_t *unknown_bytes)
{
    ASSERT(text != NULL);
    ASSERT(features != NULL);
    uint32_t result = *features;
    for (const char *word = text;;) {
        size_t bytes = strcspn(word, ",");
        if (bytes > 0 && !word_apply(word, bytes, &result)) {
            *unknown = word;
            *unknown_bytes = bytes;
            return -EINVAL;
        }
        if (word[bytes] == '\0') break;
        word += bytes + 1;
    }
    *features = result;
    return 0;
}

/* Reads a file of /proc, which is short, as text; false where it cannot be read. */
static bool file_read(const char *path, char *text, size_t text_bytes)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    ssize_t bytes = read(fd, text, text_bytes - 1);
    close(fd);
    if (bytes < 0) return false;
    text[bytes] = '\0';
    return true;
}

static int64_t number_read(const char *path)
{
    char text[32];
    return file_read(path, text, sizeof text) ? strtoll(text, NULL, 10) : -1;
}

static int seccomp_mode_read(void)
{
    static const char key[] = "\nSeccomp:";
    char text[4096];
    if (!file_read("/proc/self/status", text, sizeof text)) return -1;
    const char *found = strstr(text, key);
    return found != NULL ? (int)strtol(found + sizeof key - 1, NULL, 10) : -1;
}

struct uring_facts uring_facts_read(int err)
{
    struct rlimit limit = {0};
    int limit_err = getrlimit(RLIMIT_MEMLOCK, &limit);
    bool has_limit = limit_err == 0 && limit.rlim_cur != RLIM_INFINITY;
    return (struct uring_facts){
        .err = err,
        .disabled = (int)number_read("/proc/sys/kernel/io_uring_disabled"),
        .group = number_read("/proc/sys/kernel/io_uring_group"),
        .seccomp_mode = seccomp_mode_read(),
        .memlock_bytes = has_limit ? limit.rlim_cur : UINT64_MAX,
    };
}

static void refusal_of_permission(const struct uring_facts *facts, char *line)
{
    if (facts->disabled == 2) {
        snprintf(line, URING_REASON_BYTES,
                 "kernel.io_uring_disabled is 2, so nobody may use io_uring; "
                 "type: sysctl -w kernel.io_uring_disabled=0");
    } else if (facts->disabled == 1 && facts->group >= 0) {
        snprintf(line, URING_REASON_BYTES,
                 "kernel.io_uring_disabled is 1, so only group %lld may use io_uring; join that "
                 "group, or type: sysctl -w kernel.io_uring_disabled=0",
                 (long long)facts->group);
    } else if (facts->disabled == 1) {
        snprintf(line, URING_REASON_BYTES,
                 "kernel.io_uring_disabled is 1, so only root may use io_uring; "
                 "type: sysctl -w kernel.io_uring_disabled=0");
    } else if (facts->seccomp_mode > 0) {
        snprintf(line, URING_REASON_BYTES,
                 "a seccomp filter forbids io_uring, as containers do by default; start it with: "
                 "docker run --security-opt seccomp=PROFILE.json (one that allows io_uring_setup, "
                 "io_uring_enter and io_uring_register)");
    } else {
        snprintf(line, URING_REASON_BYTES,
                 "the kernel does not permit io_uring (%s); look for a security module (SELinux, "
                 "AppArmor) and type: sysctl kernel.io_uring_disabled",
                 strerror(-facts->err));
    }
}

const char *uring_refusal(const struct uring_facts *facts, char *line)
{
    switch (-facts->err) {
    case EPERM:
    case EACCES: refusal_of_permission(facts, line); break;
    case ENOSYS:
        if (facts->seccomp_mode > 0)
            refusal_of_permission(&(struct uring_facts){.err = facts->err, .seccomp_mode = 2},
                                  line);
        else
            snprintf(line, URING_REASON_BYTES,
                     "this kernel has no io_uring (CONFIG_IO_URING, or a sandbox such as gVisor); "
                     "use Linux 6.1 or newer");
        break;
    case ENOMEM:
        if (facts->memlock_bytes < MEMLOCK_BYTES_ENOUGH)
            snprintf(line, URING_REASON_BYTES,
                     "the limit of locked memory is %llu KiB, too little for io_uring; type: "
                     "ulimit -l unlimited, or set LimitMEMLOCK=infinity in the systemd unit",
                     (unsigned long long)(facts->memlock_bytes / KIB));
        else
            snprintf(line, URING_REASON_BYTES,
                     "no memory for io_uring; lower connections_max, or raise the memory limit of "
                     "the container or unit (MemoryMax=)");
        break;
    case EMFILE:
    case ENFILE:
        snprintf(line, URING_REASON_BYTES,
                 "no file descriptor left for io_uring; type: ulimit -n 65536, or set "
                 "LimitNOFILE=65536 in the systemd unit");
        break;
    case EINVAL:
    case EOPNOTSUPP:
        snprintf(line, URING_REASON_BYTES,
                 "this kernel's io_uring is too old: fero needs Linux 6.1 or newer");
        break;
    default:
        snprintf(line, URING_REASON_BYTES, "io_uring failed: %s", strerror(-facts->err));
        break;
    }
    return line;
}
