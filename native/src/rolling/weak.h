/* SPDX-License-Identifier: Apache-2.0
 *
 * The weak sums: what they are of a window, how they roll by a byte, and the filter of those of the old blocks.
 *
 * A polynomial of bytes b[0..n) is M^n + b[0] * M^(n-1) + ... + b[n-1] modulo 2^32: the sum before the first byte is 1, so that
 * zeros of different lengths differ. A byte that leaves takes M^n * (b + M - 1) with it.
 *
 * Source  The polynomial: R. Karp, M. Rabin, "Efficient randomized pattern-matching algorithms" (1987). The sums that others define:
 *         librsync's src/rollsum.h and src/rabinkarp.h, and pyrsync2's. */
#ifndef DIMG_ROLLING_WEAK_H
#define DIMG_ROLLING_WEAK_H

#include <stddef.h>
#include <stdint.h>

#include "../../include/dimg.h"

#define DIMG_MULTIPLIER 0x08104225u        /* librsync's, and the first of a wide sum */
#define DIMG_SECOND_MULTIPLIER 0x915F77F5u /* 5 modulo 8, as generators of full period have it */
#define DIMG_ROLLSUM_OFFSET 31u
#define DIMG_MIX 0x9E3779B97F4A7C15u

/* A sum on its way: one polynomial or two, or the sum of the bytes and the sum of these sums. */
typedef struct {
    uint64_t a, b;
} dimg_sum;

/* What rolling over some data takes. */
typedef struct {
    int kind;
    size_t window_bytes;
    uint32_t weight, second_weight; /* M^window_bytes of either polynomial */
    const uint8_t *data;
    const uint32_t *filter;
    uint32_t word_bits; /* the filter has 2^word_bits words */
} dimg_roller;

/* The weak sum that `sum` stands for. */
static inline uint64_t dimg_weak_of(int kind, dimg_sum sum)
{
    switch (kind) {
    case DIMG_WEAK_RABIN_KARP:
        return sum.a;
    case DIMG_WEAK_WIDE:
        return sum.a << 8 | sum.b >> 24;
    case DIMG_WEAK_ROLLSUM:
        return (sum.b & 0xFFFF) << 16 | (sum.a & 0xFFFF);
    default:
        return sum.b << 16 | sum.a;
    }
}

/* A weak sum as the filter takes it: 32 bits, the best of them uppermost, where a polynomial has them by itself. */
static inline uint32_t dimg_filter_hash(int kind, uint64_t weak)
{
    if (kind == DIMG_WEAK_RABIN_KARP)
        return (uint32_t)weak;
    if (kind == DIMG_WEAK_WIDE)
        return (uint32_t)(weak >> 8);
    return (uint32_t)(weak * DIMG_MIX >> 32);
}

/* The upper bits of a hash name a word of the filter, the next five and the five after these two bits in it; so a sum that is
 * not there passes once in some hundred times, for one access to memory. */
static inline uint32_t dimg_filter_mask(uint32_t hash, uint32_t word_bits)
{
    return (uint32_t)1 << (hash >> (27 - word_bits) & 31) | (uint32_t)1 << (hash >> (22 - word_bits) & 31);
}

static inline int dimg_filter_has(const uint32_t *filter, uint32_t hash, uint32_t word_bits)
{
    const uint32_t mask = dimg_filter_mask(hash, word_bits);
    return (filter[hash >> (32 - word_bits)] & mask) == mask;
}

uint32_t dimg_power_of(uint32_t base, size_t exponent);
dimg_sum dimg_sum_window(int kind, const uint8_t *window, size_t window_bytes);

/* Move the window from `position` on, byte by byte, to the first position below `end` whose weak sum passes the filter, and
 * return it with its sum in *sum; `end`, when there is none. The sum at `position` itself is given, and not looked at. */
size_t dimg_skip_misses(const dimg_roller *roller, size_t position, size_t end, dimg_sum *sum);

#if defined(__x86_64__)
/* The same for polynomials, for as long as there are 8 windows to look at: stops up to 8 short of `end` without a hit, having
 * set *is_hit, with the sum of the position that it returns. */
size_t dimg_skip_polynomial_avx2(const dimg_roller *roller, size_t position, size_t end, dimg_sum *sum, int *is_hit);
#endif

#endif
