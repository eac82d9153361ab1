/* SPDX-License-Identifier: Apache-2.0
 *
 * MD5, the strong sum of pyrsync2. One MD5 waits for itself at every step, so eight blocks are hashed at once, a lane of a
 * vector each; what is left over at the end of a call is hashed in lanes that repeat the last block.
 *
 * Source  RFC 1321. */
#include <string.h>

#include "../../include/dimg.h"
#include "../common/bytes.h"

enum { MESSAGE_BYTES = 64, OUT_BYTES = 16, LANES = 8 };

typedef uint32_t lanes __attribute__((vector_size(4 * LANES)));

static const uint32_t SINES[64] = {
    0xd76aa478, 0xe8c7b756, 0x242070db, 0xc1bdceee, 0xf57c0faf, 0x4787c62a, 0xa8304613, 0xfd469501,
    0x698098d8, 0x8b44f7af, 0xffff5bb1, 0x895cd7be, 0x6b901122, 0xfd987193, 0xa679438e, 0x49b40821,
    0xf61e2562, 0xc040b340, 0x265e5a51, 0xe9b6c7aa, 0xd62f105d, 0x02441453, 0xd8a1e681, 0xe7d3fbc8,
    0x21e1cde6, 0xc33707d6, 0xf4d50d87, 0x455a14ed, 0xa9e3e905, 0xfcefa3f8, 0x676f02d9, 0x8d2a4c8a,
    0xfffa3942, 0x8771f681, 0x6d9d6122, 0xfde5380c, 0xa4beea44, 0x4bdecfa9, 0xf6bb4b60, 0xbebfbc70,
    0x289b7ec6, 0xeaa127fa, 0xd4ef3085, 0x04881d05, 0xd9d4d039, 0xe6db99e5, 0x1fa27cf8, 0xc4ac5665,
    0xf4292244, 0x432aff97, 0xab9423a7, 0xfc93a039, 0x655b59c3, 0x8f0ccc92, 0xffeff47d, 0x85845dd1,
    0x6fa87e4f, 0xfe2ce6e0, 0xa3014314, 0x4e0811a1, 0xf7537e82, 0xbd3af235, 0x2ad7d2bb, 0xeb86d391,
};

#define STEP(f, a, b, c, d, word, shift, i)                       \
    do {                                                          \
        const lanes sum = (a) + (f) + m[word] + SINES[i];         \
        (a) = (sum << (shift) | sum >> (32 - (shift))) + (b);     \
    } while (0)

#define FIRST(b, c, d) ((d) ^ ((b) & ((c) ^ (d))))
#define SECOND(b, c, d) ((c) ^ ((d) & ((b) ^ (c))))
#define THIRD(b, c, d) ((b) ^ (c) ^ (d))
#define FOURTH(b, c, d) ((c) ^ ((b) | ~(d)))

/* Four steps; the words of the message go up by `by` from `word`, modulo 16. */
#define FOUR(f, word, by, s0, s1, s2, s3, i)                                             \
    do {                                                                                 \
        STEP(f(b, c, d), a, b, c, d, (word) & 15, s0, (i));                              \
        STEP(f(a, b, c), d, a, b, c, ((word) + (by)) & 15, s1, (i) + 1);                 \
        STEP(f(d, a, b), c, d, a, b, ((word) + 2 * (by)) & 15, s2, (i) + 2);             \
        STEP(f(c, d, a), b, c, d, a, ((word) + 3 * (by)) & 15, s3, (i) + 3);             \
    } while (0)

static inline __attribute__((always_inline)) void compress(lanes h[4], const uint8_t *const *messages)
{
    lanes m[16];
    for (int word = 0; word < 16; word++)
        for (int lane = 0; lane < LANES; lane++)
            m[word][lane] = dimg_load32(messages[lane] + 4 * word);
    lanes a = h[0], b = h[1], c = h[2], d = h[3];
    for (int i = 0; i < 16; i += 4)
        FOUR(FIRST, i, 1, 7, 12, 17, 22, i);
    for (int i = 16; i < 32; i += 4)
        FOUR(SECOND, 5 * (i - 16) + 1, 5, 5, 9, 14, 20, i);
    for (int i = 32; i < 48; i += 4)
        FOUR(THIRD, 3 * (i - 32) + 5, 3, 4, 11, 16, 23, i);
    for (int i = 48; i < 64; i += 4)
        FOUR(FOURTH, 7 * (i - 48), 7, 6, 10, 15, 21, i);
    h[0] += a;
    h[1] += b;
    h[2] += c;
    h[3] += d;
}

/* The end of a block: its last bytes, the mark, the length in bits; one message, or two. */
static size_t build_tail(const uint8_t *rest, size_t rest_bytes, size_t block_bytes, uint8_t *tail)
{
    const size_t tail_bytes = rest_bytes < MESSAGE_BYTES - 8 ? MESSAGE_BYTES : 2 * MESSAGE_BYTES;
    memset(tail, 0, 2 * MESSAGE_BYTES);
    if (rest_bytes > 0)
        memcpy(tail, rest, rest_bytes);
    tail[rest_bytes] = 0x80;
    const uint64_t bits = (uint64_t)block_bytes * 8;
    dimg_store32(tail + tail_bytes - 8, (uint32_t)bits);
    dimg_store32(tail + tail_bytes - 4, (uint32_t)(bits >> 32));
    return tail_bytes;
}

static inline __attribute__((always_inline)) void hash_lanes_inline(const uint8_t *const *blocks, size_t block_bytes,
                                                                    uint8_t *out, size_t out_count)
{
    const uint32_t start[4] = {0x67452301u, 0xefcdab89u, 0x98badcfeu, 0x10325476u};
    lanes h[4];
    for (int i = 0; i < 4; i++)
        h[i] = (lanes){0} + start[i];
    const uint8_t *messages[LANES];
    const size_t whole = block_bytes / MESSAGE_BYTES * MESSAGE_BYTES;
    for (size_t done = 0; done < whole; done += MESSAGE_BYTES) {
        for (int lane = 0; lane < LANES; lane++)
            messages[lane] = blocks[lane] + done;
        compress(h, messages);
    }
    uint8_t tails[LANES][2 * MESSAGE_BYTES];
    size_t tail_bytes = 0;
    for (int lane = 0; lane < LANES; lane++)
        tail_bytes = build_tail(blocks[lane] + whole, block_bytes - whole, block_bytes, tails[lane]);
    for (size_t done = 0; done < tail_bytes; done += MESSAGE_BYTES) {
        for (int lane = 0; lane < LANES; lane++)
            messages[lane] = tails[lane] + done;
        compress(h, messages);
    }
    for (size_t lane = 0; lane < out_count; lane++)
        for (size_t i = 0; i < 4; i++)
            dimg_store32(out + OUT_BYTES * lane + 4 * i, h[i][lane]);
}

static void hash_lanes(const uint8_t *const *blocks, size_t block_bytes, uint8_t *out, size_t out_count)
{
    hash_lanes_inline(blocks, block_bytes, out, out_count);
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) static void hash_lanes_avx2(const uint8_t *const *blocks, size_t block_bytes, uint8_t *out,
                                                            size_t out_count)
{
    hash_lanes_inline(blocks, block_bytes, out, out_count);
}
#endif

int dimg_md5_blocks(const uint8_t *data, size_t block_count, size_t block_bytes, uint8_t *out_digests)
{
    if (block_bytes != 0 && block_count > SIZE_MAX / block_bytes)
        return DIMG_BAD_ARGUMENT;
    for (size_t block = 0; block < block_count; block += LANES) {
        const size_t count = block_count - block < LANES ? block_count - block : LANES;
        const uint8_t *blocks[LANES];
        for (size_t lane = 0; lane < LANES; lane++)
            blocks[lane] = data + (block + (lane < count ? lane : count - 1)) * block_bytes;
#if defined(__x86_64__)
        if (__builtin_cpu_supports("avx2")) {
            hash_lanes_avx2(blocks, block_bytes, out_digests + OUT_BYTES * block, count);
            continue;
        }
#endif
        hash_lanes(blocks, block_bytes, out_digests + OUT_BYTES * block, count);
    }
    return DIMG_OK;
}
