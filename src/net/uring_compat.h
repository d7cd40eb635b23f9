/*
 * What kernels have and Debian 12's liburing 2.3 does not name. Newer headers define these as enums
 * or macros, which no #ifndef tells apart, so they stand here under names of our own. Checklist: a
 * constant added here is part of the kernel's ABI; say since which kernel.
 */
#pragma once

#include <liburing.h>

/* io_uring_params.features */
#define COMPAT_FEAT_RECVSEND_BUNDLE (1u << 14) /* 6.10 */
#define COMPAT_FEAT_MIN_TIMEOUT (1u << 15)     /* 6.12 */
#define COMPAT_FEAT_NO_IOWAIT (1u << 17)       /* 6.15 */

/* io_uring_enter */
#define COMPAT_ENTER_NO_IOWAIT (1u << 7) /* 6.15 */

/* sqe->ioprio of RECV */
#define COMPAT_RECVSEND_BUNDLE (1u << 4) /* 6.10 */
