/*
 * What a reply on the wire says, as the public API tells it.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/attr.h"
#include "fero.h"

/* Reads a value where it lies. False: it cannot have these bytes. */
MUST_CHECK bool result_value_read(fero_val *to, uint8_t type, const uint8_t *data, size_t bytes);
/* Reads the reply of a shard of this process, which is as it should be. */
void result_read(fero_result *result, const uint8_t *frame, size_t bytes);
