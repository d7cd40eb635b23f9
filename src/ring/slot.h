/*
 * Which slot a key belongs to: the unit of ownership and replication.
 *
 * The partition is the key up to its first '.', or all of it. Where the partition holds {...} with
 * something inside, only the inside is hashed, so that one can put partitions together on purpose.
 * The hash is Redis Cluster's: crc16 (XMODEM: polynomial 0x1021, first value 0, no reflection, no
 * final xor) modulo 16384. Four neighbours among Redis' slots are one of ours.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define SLOTS_COUNT 4096
#define SLOTS_REDIS_COUNT 16384
#define SLOT_REDIS_SHIFT 2
_Static_assert(SLOTS_REDIS_COUNT >> SLOT_REDIS_SHIFT == SLOTS_COUNT, "a slot is four of Redis'");

/* The slot of a key; `bytes` may be 0. */
uint16_t slot_of_key(const void *key, size_t bytes);
/* The slot of a partition whose end the caller knows: a '.' in it is a byte like others. */
uint16_t slot_of_partition(const void *partition, size_t bytes);
/* The checksum itself. */
uint16_t slot_crc16(const void *data, size_t bytes);
