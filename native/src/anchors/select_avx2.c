/* SPDX-License-Identifier: Apache-2.0
 *
 * With vectors of 8 words for AVX2. */
#if defined(__x86_64__)

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#else
#pragma GCC target("avx2")
#endif

#define SELECT_ANCHORS dimg_select_anchors_avx2
#define LANE_MASK(hits) __builtin_ia32_movmskps256((floats)(hits))
typedef float floats __attribute__((vector_size(32)));
#include "select.inc.h"

#if defined(__clang__)
#pragma clang attribute pop
#endif

#else
typedef int dimg_no_avx2_anchors; /* C forbids an empty file */
#endif
