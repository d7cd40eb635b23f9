/*
 * What every runtime begins with: its kind, so that the public API knows whom to ask.
 */
#pragma once

#include <stdint.h>

enum runtime_kind { RUNTIME_SERVER = 1, RUNTIME_CLIENT = 2 };

struct runtime_head {
    uint32_t kind; /* enum runtime_kind */
};
