/* SPDX-License-Identifier: Apache-2.0
 *
 * Weak sums from scratch. A polynomial is summed 8 bytes at a time, so that only one multiplication of eight waits for the one
 * before it. */
#include "weak.h"

#include "../../include/dimg.h"

enum { MIN_FILTER_BITS = 8, MAX_FILTER_BITS = 27, WORD_SHIFT = 5 };

uint32_t dimg_power_of(uint32_t base, size_t exponent)
{
    uint32_t result = 1;
    for (; exponent > 0; exponent >>= 1, base *= base)
        if (exponent & 1)
            result *= base;
    return result;
}

static uint32_t sum_polynomial(uint32_t m, const uint8_t *bytes, size_t count)
{
    const uint32_t m2 = m * m, m3 = m2 * m, m4 = m2 * m2, m5 = m4 * m, m6 = m4 * m2, m7 = m4 * m3, m8 = m4 * m4;
    uint32_t sum = 1;
    size_t i = 0;
    for (; count - i >= 8; i += 8)
        sum = sum * m8 + (bytes[i] * m7 + bytes[i + 1] * m6 + bytes[i + 2] * m5 + bytes[i + 3] * m4)
              + (bytes[i + 4] * m3 + bytes[i + 5] * m2 + bytes[i + 6] * m + bytes[i + 7]);
    for (; i < count; i++)
        sum = sum * m + bytes[i];
    return sum;
}

/* a is the sum of the bytes, b that of all the a on the way. Within 256 bytes neither passes 32 bits, so that the compiler
 * may use its vectors. */
static dimg_sum sum_twice(const uint8_t *bytes, size_t count, uint32_t offset)
{
    dimg_sum sum = {0, 0};
    for (size_t done = 0; done < count;) {
        const uint32_t piece = count - done < 256 ? (uint32_t)(count - done) : 256;
        uint32_t a = 0, b = 0;
        for (uint32_t i = 0; i < piece; i++) {
            const uint32_t value = bytes[done + i] + offset;
            a += value;
            b += (piece - i) * value;
        }
        sum.b += sum.a * piece + b;
        sum.a += a;
        done += piece;
    }
    return sum;
}

dimg_sum dimg_sum_window(int kind, const uint8_t *window, size_t window_bytes)
{
    switch (kind) {
    case DIMG_WEAK_RABIN_KARP:
        return (dimg_sum){sum_polynomial(DIMG_MULTIPLIER, window, window_bytes), 0};
    case DIMG_WEAK_WIDE:
        return (dimg_sum){sum_polynomial(DIMG_MULTIPLIER, window, window_bytes),
                          sum_polynomial(DIMG_SECOND_MULTIPLIER, window, window_bytes)};
    default:
        return sum_twice(window, window_bytes, kind == DIMG_WEAK_ROLLSUM ? DIMG_ROLLSUM_OFFSET : 0);
    }
}

int dimg_weak_sums(int kind, const uint8_t *data, size_t block_count, size_t block_bytes, uint64_t *out_sums)
{
    if (kind < DIMG_WEAK_RABIN_KARP || kind > DIMG_WEAK_WIDE || block_bytes == 0 || block_count > SIZE_MAX / block_bytes)
        return DIMG_BAD_ARGUMENT;
    for (size_t block = 0; block < block_count; block++)
        out_sums[block] = dimg_weak_of(kind, dimg_sum_window(kind, data + block * block_bytes, block_bytes));
    return DIMG_OK;
}

int dimg_fill_filter(int kind, const uint64_t *weaks, size_t count, uint32_t *filter, uint32_t filter_bits)
{
    if (kind < DIMG_WEAK_RABIN_KARP || kind > DIMG_WEAK_WIDE || filter_bits < MIN_FILTER_BITS || filter_bits > MAX_FILTER_BITS)
        return DIMG_BAD_ARGUMENT;
    const uint32_t word_bits = filter_bits - WORD_SHIFT;
    for (size_t i = 0; i < count; i++) {
        const uint32_t hash = dimg_filter_hash(kind, weaks[i]);
        filter[hash >> (32 - word_bits)] |= dimg_filter_mask(hash, word_bits);
    }
    return DIMG_OK;
}
