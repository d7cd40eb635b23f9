#include "log/checksum.h"

#include "base/hash.h"

#ifndef CHECKSUM_BYTES
#define CHECKSUM_BYTES checksum_bytes
#endif

uint64_t CHECKSUM_BYTES(const void *data, size_t bytes)
{
    return hash_bytes(data, bytes);
}
