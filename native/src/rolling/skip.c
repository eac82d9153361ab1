/* SPDX-License-Identifier: Apache-2.0
 *
 * Passing over windows that are in no old block, byte by byte: the loop in which the search spends its time. */
#include "weak.h"

static size_t skip_one_polynomial(const dimg_roller *r, size_t position, size_t end, dimg_sum *sum)
{
    const uint32_t m = DIMG_MULTIPLIER, weight = r->weight, word_bits = r->word_bits;
    const uint32_t *filter = r->filter;
    const uint8_t *out = r->data + position, *in = out + r->window_bytes;
    uint32_t h = (uint32_t)sum->a;
    while (++position < end) {
        h = h * m + *in++ - weight * (*out++ + m - 1);
        if (dimg_filter_has(filter, h, word_bits))
            break;
    }
    sum->a = h;
    return position;
}

static size_t skip_two_polynomials(const dimg_roller *r, size_t position, size_t end, dimg_sum *sum)
{
    const uint32_t m = DIMG_MULTIPLIER, second = DIMG_SECOND_MULTIPLIER, word_bits = r->word_bits;
    const uint8_t *out = r->data + position, *in = out + r->window_bytes;
    uint32_t h = (uint32_t)sum->a, g = (uint32_t)sum->b;
    while (++position < end) {
        h = h * m + *in - r->weight * (*out + m - 1);
        g = g * second + *in++ - r->second_weight * (*out++ + second - 1);
        if (dimg_filter_has(r->filter, h, word_bits))
            break;
    }
    *sum = (dimg_sum){h, g};
    return position;
}

static inline __attribute__((always_inline)) size_t skip_two_sums(const dimg_roller *r, size_t position, size_t end, dimg_sum *sum,
                                                                  int kind)
{
    const size_t n = r->window_bytes;
    const uint64_t offset = kind == DIMG_WEAK_ROLLSUM ? DIMG_ROLLSUM_OFFSET : 0;
    while (++position < end) {
        const uint64_t out = r->data[position - 1], in = r->data[position - 1 + n];
        sum->a += in - out;
        sum->b += sum->a - n * (out + offset);
        if (dimg_filter_has(r->filter, dimg_filter_hash(kind, dimg_weak_of(kind, *sum)), r->word_bits))
            break;
    }
    return position;
}

size_t dimg_skip_misses(const dimg_roller *r, size_t position, size_t end, dimg_sum *sum)
{
    if (r->kind == DIMG_WEAK_ROLLSUM)
        return skip_two_sums(r, position, end, sum, DIMG_WEAK_ROLLSUM);
    if (r->kind == DIMG_WEAK_PYRSYNC)
        return skip_two_sums(r, position, end, sum, DIMG_WEAK_PYRSYNC);
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2")) {
        int is_hit = 0;
        position = dimg_skip_polynomial_avx2(r, position, end, sum, &is_hit);
        if (is_hit)
            return position;
    }
#endif
    return r->kind == DIMG_WEAK_RABIN_KARP ? skip_one_polynomial(r, position, end, sum)
                                           : skip_two_polynomials(r, position, end, sum);
}
