/* SPDX-License-Identifier: Apache-2.0
 *
 * The weak sums: what they are of a window, and how they roll by a byte.
 *
 * The polynomials, of bytes b[0..n): seed * M^n + b[0] * M^(n-1) + ... + b[n-1]. The 32-bit one is computed modulo 2^64, too: its
 * lower half is the same. A byte that leaves takes M^n * (b + (M - 1) * seed) with it, which a table of 256 entries holds.
 *
 * Sources  librsync's documentation for its two sums; pyrsync2 for its. */
#ifndef DIMG_ROLLING_WEAK_H
#define DIMG_ROLLING_WEAK_H

#include <stddef.h>
#include <stdint.h>

#include "../../include/dimg.h"

#define DIMG_RABIN_KARP_MULTIPLIER 0x08104225u
#define DIMG_WIDE_MULTIPLIER 0xD1342543DE82EF95u /* 5 modulo 8, as generators of full period have it */
#define DIMG_ROLLSUM_OFFSET 31u

typedef struct {
    int kind;
    size_t window_bytes;
    uint64_t multiplier;
    uint64_t leaving[256]; /* what a byte that leaves takes with it; polynomials only */
} dimg_roller;

/* A sum on its way: the polynomial, or its two halves. */
typedef struct {
    uint64_t a, b;
} dimg_sum;

static inline int dimg_is_polynomial(int kind)
{
    return kind == DIMG_WEAK_RABIN_KARP || kind == DIMG_WEAK_WIDE;
}

static inline uint64_t dimg_multiplier_of(int kind)
{
    return kind == DIMG_WEAK_RABIN_KARP ? DIMG_RABIN_KARP_MULTIPLIER : DIMG_WIDE_MULTIPLIER;
}

/* The weak sum that `sum` stands for. */
static inline uint64_t dimg_weak_of(int kind, dimg_sum sum)
{
    switch (kind) {
    case DIMG_WEAK_RABIN_KARP:
        return sum.a & UINT32_MAX;
    case DIMG_WEAK_WIDE:
        return sum.a >> 24;
    case DIMG_WEAK_ROLLSUM:
        return (sum.b & 0xFFFF) << 16 | (sum.a & 0xFFFF);
    default:
        return sum.b << 16 | sum.a;
    }
}

/* A weak sum as a filter takes it: its best bits uppermost, which a polynomial has there by itself. */
static inline uint64_t dimg_filter_hash(int kind, uint64_t weak)
{
    if (kind == DIMG_WEAK_RABIN_KARP)
        return weak << 32;
    if (kind == DIMG_WEAK_WIDE)
        return weak << 24;
    return weak * 0x9E3779B97F4A7C15u;
}

/* A filter of 2^bits is words of 64 bits. The upper bits of a hash name the word, the next six and the six after these two bits
 * in it, so that a sum that is not there passes once in several hundred, for one access to memory. */
static inline uint64_t dimg_filter_bits_of(uint64_t hash, uint32_t word_bits)
{
    return (uint64_t)1 << (hash >> (58 - word_bits) & 63) | (uint64_t)1 << (hash >> (52 - word_bits) & 63);
}

static inline uint64_t dimg_filter_has(const uint64_t *filter, uint64_t hash, uint32_t word_bits)
{
    const uint64_t word = filter[hash >> (64 - word_bits)];
    return word >> (hash >> (58 - word_bits) & 63) & word >> (hash >> (52 - word_bits) & 63) & 1;
}

dimg_sum dimg_sum_window(int kind, const uint8_t *window, size_t window_bytes);
void dimg_start_roller(dimg_roller *roller, int kind, size_t window_bytes);

#endif
