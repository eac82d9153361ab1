/* SPDX-License-Identifier: Apache-2.0
 *
 * BLAKE3's compression function, one message at a time (the paper's section 2.2). Used where lanes have nothing to gain:
 * the last, partial chunk of a buffer. */
#include "blake3.h"

#include "../common/bytes.h"

static inline uint32_t rotate_right(uint32_t word, int bits)
{
    return (word >> bits) | (word << (32 - bits));
}

static inline void mix(uint32_t *a, uint32_t *b, uint32_t *c, uint32_t *d, uint32_t x, uint32_t y)
{
    *a += *b + x;
    *d = rotate_right(*d ^ *a, 16);
    *c += *d;
    *b = rotate_right(*b ^ *c, 12);
    *a += *b + y;
    *d = rotate_right(*d ^ *a, 8);
    *c += *d;
    *b = rotate_right(*b ^ *c, 7);
}

void dimg_compress(uint32_t cv[8], const uint8_t message[DIMG_MESSAGE_BYTES], uint32_t message_bytes, uint32_t counter,
                   uint32_t flags)
{
    uint32_t m[16];
    for (size_t i = 0; i < 16; i++)
        m[i] = dimg_load32(message + 4 * i);
    uint32_t v[16] = {cv[0], cv[1], cv[2], cv[3], cv[4], cv[5], cv[6], cv[7],
                      DIMG_IV0, DIMG_IV1, DIMG_IV2, DIMG_IV3, counter, 0, message_bytes, flags};

#define ROUND(a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14, a15) \
    mix(&v[0], &v[4], &v[8], &v[12], m[a0], m[a1]);                                 \
    mix(&v[1], &v[5], &v[9], &v[13], m[a2], m[a3]);                                 \
    mix(&v[2], &v[6], &v[10], &v[14], m[a4], m[a5]);                                \
    mix(&v[3], &v[7], &v[11], &v[15], m[a6], m[a7]);                                \
    mix(&v[0], &v[5], &v[10], &v[15], m[a8], m[a9]);                                \
    mix(&v[1], &v[6], &v[11], &v[12], m[a10], m[a11]);                              \
    mix(&v[2], &v[7], &v[8], &v[13], m[a12], m[a13]);                               \
    mix(&v[3], &v[4], &v[9], &v[14], m[a14], m[a15]);
    DIMG_EACH_ROUND(ROUND)
#undef ROUND

    for (size_t i = 0; i < 8; i++)
        cv[i] = v[i] ^ v[i + 8];
}
