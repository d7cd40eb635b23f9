/*
 * This file is compiled twice: as it is, and with VARIANT_V3 for processors of the level x86-64-v3,
 * where AVX2 halves the instructions for a batch. See the Makefile.
 */
#include "log/checksum.h"

#include "base/hash.h"

#ifdef VARIANT_V3
uint64_t checksum_bytes_v3(const void *data, size_t bytes)
#else
uint64_t checksum_bytes(const void *data, size_t bytes)
#endif
{
    return hash_bytes(data, bytes);
}

#ifndef VARIANT_V3
checksum_fn checksum_choose(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2")) return checksum_bytes_v3;
#endif
    return checksum_bytes;
}
#endif
