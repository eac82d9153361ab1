/* SPDX-License-Identifier: Apache-2.0
 *
 * BLAKE2b, 32 bytes of digest, no key: the strong sum of librsync. Blocks of some kilobytes would each cost a call from
 * Python; and the search for blocks needs it where there is no Python.
 *
 * Source  RFC 7693. */
#include <string.h>

#include "../../include/dimg.h"
#include "../common/bytes.h"

enum { MESSAGE_BYTES = 128, OUT_BYTES = 32, ROUNDS = 12 };

static const uint64_t IV[8] = {
    0x6A09E667F3BCC908u, 0xBB67AE8584CAA73Bu, 0x3C6EF372FE94F82Bu, 0xA54FF53A5F1D36F1u,
    0x510E527FADE682D1u, 0x9B05688C2B3E6C1Fu, 0x1F83D9ABFB41BD6Bu, 0x5BE0CD19137E2179u,
};

static inline uint64_t rotate(uint64_t word, int bits)
{
    return word >> bits | word << (64 - bits);
}

#define MIX_QUARTER(a, b, c, d, x, y)    \
    do {                                 \
        a += b + (x);                    \
        d = rotate(d ^ a, 32);           \
        c += d;                          \
        b = rotate(b ^ c, 24);           \
        a += b + (y);                    \
        d = rotate(d ^ a, 16);           \
        c += d;                          \
        b = rotate(b ^ c, 63);           \
    } while (0)

/* One round, with the order in which it takes the words of the message. Spelled out, so that all places are constants. */
#define ROUND(i0, i1, i2, i3, i4, i5, i6, i7, i8, i9, i10, i11, i12, i13, i14, i15) \
    do {                                                                            \
        MIX_QUARTER(v0, v4, v8, v12, m[i0], m[i1]);                                 \
        MIX_QUARTER(v1, v5, v9, v13, m[i2], m[i3]);                                 \
        MIX_QUARTER(v2, v6, v10, v14, m[i4], m[i5]);                                \
        MIX_QUARTER(v3, v7, v11, v15, m[i6], m[i7]);                                \
        MIX_QUARTER(v0, v5, v10, v15, m[i8], m[i9]);                                \
        MIX_QUARTER(v1, v6, v11, v12, m[i10], m[i11]);                              \
        MIX_QUARTER(v2, v7, v8, v13, m[i12], m[i13]);                               \
        MIX_QUARTER(v3, v4, v9, v14, m[i14], m[i15]);                               \
    } while (0)

static void compress(uint64_t h[8], const uint8_t *message, uint64_t hashed_bytes, int is_last)
{
    uint64_t m[16];
    for (int i = 0; i < 16; i++)
        m[i] = dimg_load64(message + 8 * i);
    uint64_t v0 = h[0], v1 = h[1], v2 = h[2], v3 = h[3], v4 = h[4], v5 = h[5], v6 = h[6], v7 = h[7];
    uint64_t v8 = IV[0], v9 = IV[1], v10 = IV[2], v11 = IV[3];
    uint64_t v12 = IV[4] ^ hashed_bytes, v13 = IV[5], v14 = is_last ? ~IV[6] : IV[6], v15 = IV[7];
    ROUND(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    ROUND(14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3);
    ROUND(11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4);
    ROUND(7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8);
    ROUND(9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13);
    ROUND(2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9);
    ROUND(12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11);
    ROUND(13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10);
    ROUND(6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5);
    ROUND(10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0);
    ROUND(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    ROUND(14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3);
    h[0] ^= v0 ^ v8;
    h[1] ^= v1 ^ v9;
    h[2] ^= v2 ^ v10;
    h[3] ^= v3 ^ v11;
    h[4] ^= v4 ^ v12;
    h[5] ^= v5 ^ v13;
    h[6] ^= v6 ^ v14;
    h[7] ^= v7 ^ v15;
}

static void hash_block(const uint8_t *data, size_t data_bytes, uint8_t *out)
{
    uint64_t h[8];
    memcpy(h, IV, sizeof h);
    h[0] ^= 0x01010000u ^ OUT_BYTES; /* fan-out and depth 1, no key, the length of the digest */
    size_t done = 0;
    for (; data_bytes - done > MESSAGE_BYTES; done += MESSAGE_BYTES)
        compress(h, data + done, done + MESSAGE_BYTES, 0);
    uint8_t last[MESSAGE_BYTES] = {0};
    if (data_bytes > done)
        memcpy(last, data + done, data_bytes - done);
    compress(h, last, data_bytes, 1);
    for (size_t i = 0; i < OUT_BYTES / 8; i++) {
        dimg_store32(out + 8 * i, (uint32_t)h[i]);
        dimg_store32(out + 8 * i + 4, (uint32_t)(h[i] >> 32));
    }
}

int dimg_blake2b_blocks(const uint8_t *data, size_t block_count, size_t block_bytes, uint8_t *out_digests)
{
    if (block_bytes != 0 && block_count > SIZE_MAX / block_bytes)
        return DIMG_BAD_ARGUMENT;
    for (size_t block = 0; block < block_count; block++)
        hash_block(data + block * block_bytes, block_bytes, out_digests + OUT_BYTES * block);
    return DIMG_OK;
}
