/* SPDX-License-Identifier: Apache-2.0
 *
 * Passing over windows, eight at a time. What each byte does to a polynomial is independent of the polynomial itself:
 * t = in - weight * (out + M - 1). Three rounds of multiply, shift and add make of eight such t what the sum is changed by after
 * one, two, ... eight bytes; the sum itself waits for one multiplication in eight bytes. A gather asks the filter for all eight. */
#include "weak.h"

#if defined(__x86_64__)

#include <immintrin.h>

#define AVX2 __attribute__((target("avx2")))
#define AVX2_INLINE static inline __attribute__((always_inline, target("avx2")))

/* A polynomial in eight lanes. */
typedef struct {
    __m256i sum;                       /* before the next byte, in all lanes */
    __m256i m, m2, m4, powers, m8;     /* M, M^2, M^4; M^1 to M^8; M^8 */
    __m256i weight, adjustment;        /* M^n; M - 1 */
} polynomial;

AVX2_INLINE __m256i spread(uint32_t word)
{
    return _mm256_set1_epi32((int)word);
}

AVX2_INLINE polynomial start_polynomial(uint32_t m, uint32_t weight, uint32_t sum)
{
    const uint32_t m2 = m * m, m4 = m2 * m2;
    const __m256i powers = _mm256_setr_epi32((int)m, (int)m2, (int)(m2 * m), (int)m4, (int)(m4 * m), (int)(m4 * m2),
                                             (int)(m4 * m2 * m), (int)(m4 * m4));
    return (polynomial){spread(sum), spread(m), spread(m2), spread(m4), powers, spread(m4 * m4), spread(weight), spread(m - 1)};
}

/* The sums after one, two, ... eight bytes more; *next is the last of them, in all lanes. */
AVX2_INLINE __m256i roll_eight(const polynomial *p, __m256i in, __m256i out, __m256i *next)
{
    const __m256i leaving = _mm256_mullo_epi32(p->weight, _mm256_add_epi32(out, p->adjustment));
    __m256i t = _mm256_sub_epi32(in, leaving);
    /* Lanes move up by one, by two, by four; zero comes in below. */
    __m256i low = _mm256_permute2x128_si256(t, t, 0x08);
    t = _mm256_add_epi32(t, _mm256_mullo_epi32(p->m, _mm256_alignr_epi8(t, low, 12)));
    low = _mm256_permute2x128_si256(t, t, 0x08);
    t = _mm256_add_epi32(t, _mm256_mullo_epi32(p->m2, _mm256_alignr_epi8(t, low, 8)));
    low = _mm256_permute2x128_si256(t, t, 0x08);
    t = _mm256_add_epi32(t, _mm256_mullo_epi32(p->m4, low));
    const __m256i last = _mm256_permutevar8x32_epi32(t, _mm256_set1_epi32(7));
    *next = _mm256_add_epi32(_mm256_mullo_epi32(p->sum, p->m8), last);
    return _mm256_add_epi32(_mm256_mullo_epi32(p->sum, p->powers), t);
}

AVX2_INLINE __m256i load_eight(const uint8_t *bytes)
{
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)bytes));
}

AVX2_INLINE uint32_t lane_of(__m256i lanes, int lane)
{
    uint32_t words[8];
    _mm256_storeu_si256((__m256i *)(void *)words, lanes);
    return words[lane];
}

AVX2_INLINE size_t skip(const dimg_roller *r, size_t position, size_t end, dimg_sum *sum, int *is_hit, int is_wide)
{
    polynomial first = start_polynomial(DIMG_MULTIPLIER, r->weight, (uint32_t)sum->a);
    polynomial second = start_polynomial(DIMG_SECOND_MULTIPLIER, r->second_weight, (uint32_t)sum->b);
    const __m128i word_shift = _mm_cvtsi32_si128((int)(32 - r->word_bits));
    const __m128i bit_shift = _mm_cvtsi32_si128((int)(27 - r->word_bits)), next_shift = _mm_cvtsi32_si128((int)(22 - r->word_bits));
    const __m256i five = spread(31), one = spread(1);
    *is_hit = 0;
    while (end - position > 8) {
        const __m256i out = load_eight(r->data + position), in = load_eight(r->data + position + r->window_bytes);
        __m256i next, second_next = second.sum, second_sums = second.sum;
        const __m256i sums = roll_eight(&first, in, out, &next);
        if (is_wide)
            second_sums = roll_eight(&second, in, out, &second_next);
        const __m256i words = _mm256_i32gather_epi32((const int *)(const void *)r->filter, _mm256_srl_epi32(sums, word_shift), 4);
        const __m256i mask = _mm256_or_si256(
            _mm256_sllv_epi32(one, _mm256_and_si256(_mm256_srl_epi32(sums, bit_shift), five)),
            _mm256_sllv_epi32(one, _mm256_and_si256(_mm256_srl_epi32(sums, next_shift), five)));
        const __m256i hits = _mm256_cmpeq_epi32(_mm256_and_si256(words, mask), mask);
        const int bits = _mm256_movemask_ps(_mm256_castsi256_ps(hits));
        if (bits != 0) {
            const int lane = __builtin_ctz((unsigned)bits);
            *sum = (dimg_sum){lane_of(sums, lane), is_wide ? lane_of(second_sums, lane) : 0};
            *is_hit = 1;
            return position + (size_t)lane + 1;
        }
        first.sum = next;
        second.sum = second_next;
        position += 8;
    }
    *sum = (dimg_sum){lane_of(first.sum, 0), is_wide ? lane_of(second.sum, 0) : 0};
    return position;
}

AVX2 size_t dimg_skip_polynomial_avx2(const dimg_roller *r, size_t position, size_t end, dimg_sum *sum, int *is_hit)
{
    return r->kind == DIMG_WEAK_WIDE ? skip(r, position, end, sum, is_hit, 1) : skip(r, position, end, sum, is_hit, 0);
}

#endif
