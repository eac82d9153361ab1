/* SPDX-License-Identifier: Apache-2.0
 *
 * 8 lanes for AVX2; rotations by whole bytes are byte shuffles. */
#if defined(__x86_64__)

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#else
#pragma GCC target("avx2")
#endif

#define LANES 8
#define HASH_INPUTS dimg_hash_inputs_avx2
#define BYTE_SHUFFLES 1
#include "lanes.inc.h"

#if defined(__clang__)
#pragma clang attribute pop
#endif

#else
typedef int dimg_no_avx2; /* C forbids an empty file */
#endif
