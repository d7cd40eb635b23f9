/*
 * checksum.c again, with AVX2: half the instructions for a batch.
 */
#if defined(__x86_64__)
#pragma GCC target("arch=haswell,tune=haswell")
#endif

#define CHECKSUM_BYTES checksum_bytes_v3
#include "log/checksum.c" /* NOLINT(bugprone-suspicious-include) */

checksum_fn checksum_choose(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2")) return checksum_bytes_v3;
#endif
    return checksum_bytes;
}
