/* SPDX-License-Identifier: Apache-2.0
 *
 * 4 lanes for SSE4.1; rotations by whole bytes are byte shuffles. */
#if defined(__x86_64__)

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("sse4.1"))), apply_to = function)
#else
#pragma GCC target("sse4.1")
#endif

#define LANES 4
#define HASH_INPUTS dimg_hash_inputs_sse41
#define BYTE_SHUFFLES 1
#include "lanes.inc.h"

#if defined(__clang__)
#pragma clang attribute pop
#endif

#else
typedef int dimg_no_sse41; /* C forbids an empty file */
#endif
