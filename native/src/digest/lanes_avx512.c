/* SPDX-License-Identifier: Apache-2.0
 *
 * 16 lanes for AVX-512F; rotations are instructions of their own. */
#if defined(__x86_64__)

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f"))), apply_to = function)
#else
#pragma GCC target("avx512f")
#endif

#define LANES 16
#define HASH_INPUTS dimg_hash_inputs_avx512
#define BYTE_SHUFFLES 0
#include "lanes.inc.h"

#if defined(__clang__)
#pragma clang attribute pop
#endif

#else
typedef int dimg_no_avx512; /* C forbids an empty file */
#endif
