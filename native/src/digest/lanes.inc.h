/* SPDX-License-Identifier: Apache-2.0
 *
 * BLAKE3 in lanes: LANES inputs are hashed side by side, lane i of every vector belonging to input i. A template: each
 * path's .c file defines the macros below and includes it once. It is written in the vector extensions that gcc and clang
 * share, so that one text serves every processor.
 *
 *   LANES          4, 8 or 16
 *   HASH_INPUTS    name of the function to define (see blake3.h)
 *   BYTE_SHUFFLES  1 where rotating by 16 and 8 is faster as a shuffle of bytes
 *
 * Loading is what could cost most: lane i needs word w of input i, a transposition. A vector is filled from 16-byte pieces
 * such that piece g comes from input 4g + k; then transposing 4 x 4 words *inside* the pieces is all that is left to do, and
 * no shuffle crosses a piece, which is slow on x86.
 *
 * Sixteen vectors of state and sixteen of message are far more than 16 registers. Left alone, gcc 12 spills the state in the
 * middle of every round (2.6 GB/s with AVX2 on a Zen 3); scheduling for register pressure before registers are allotted, and the
 * message kept in memory, give 3.9. clang (3.5) does neither better nor worse for it. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("schedule-insns", "sched-pressure", "ira-region=one")
#endif

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "../common/bytes.h"
#include "blake3.h"

#define ALWAYS_INLINE static inline __attribute__((always_inline))

enum { PIECES = LANES / 4, PIECE_BYTES = 16 };

typedef uint32_t words __attribute__((vector_size(LANES * 4)));
typedef uint8_t octets __attribute__((vector_size(LANES * 4)));
typedef uint64_t pairs __attribute__((vector_size(LANES * 4)));
typedef uint32_t piece __attribute__((vector_size(PIECE_BYTES)));
typedef uint64_t pair __attribute__((vector_size(PIECE_BYTES)));

/* ---- shuffles ---- */

/* gcc before 12 lacks __builtin_shufflevector, clang lacks __builtin_shuffle. */
#if defined(__clang__)
#define SHUFFLE(type, a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(type, a, b, ...) __builtin_shuffle(a, b, (type){__VA_ARGS__})
#endif

/* EVERY_PIECE lists an index of each word of each piece: P(n) gives those of the piece whose first word is n. */
#if LANES == 4
#define EVERY_PIECE(P) P(0)
#define EVERY_OCTET(O) O(0)
#elif LANES == 8
#define EVERY_PIECE(P) P(0), P(4)
#define EVERY_OCTET(O) O(0), O(16)
#elif LANES == 16
#define EVERY_PIECE(P) P(0), P(4), P(8), P(12)
#define EVERY_OCTET(O) O(0), O(16), O(32), O(48)
#endif

#define LOW_WORDS(n) (n), (n) + LANES, (n) + 1, (n) + LANES + 1
#define HIGH_WORDS(n) (n) + 2, (n) + LANES + 2, (n) + 3, (n) + LANES + 3
#define LOW_PAIRS(n) (n), (n) + 1, (n) + LANES, (n) + LANES + 1
#define HIGH_PAIRS(n) (n) + 2, (n) + 3, (n) + LANES + 2, (n) + LANES + 3

#define ROTATE4(n, by) (n) + (by) % 4, (n) + ((by) + 1) % 4, (n) + ((by) + 2) % 4, (n) + ((by) + 3) % 4
#define ROTATE16(n) ROTATE4(n, 2), ROTATE4((n) + 4, 2), ROTATE4((n) + 8, 2), ROTATE4((n) + 12, 2)
#define ROTATE8(n) ROTATE4(n, 1), ROTATE4((n) + 4, 1), ROTATE4((n) + 8, 1), ROTATE4((n) + 12, 1)

/* Transpose the 4 x 4 words of each piece of v[0..4). */
ALWAYS_INLINE void transpose_pieces(words v[4])
{
    const words low01 = SHUFFLE(words, v[0], v[1], EVERY_PIECE(LOW_WORDS));
    const words high01 = SHUFFLE(words, v[0], v[1], EVERY_PIECE(HIGH_WORDS));
    const words low23 = SHUFFLE(words, v[2], v[3], EVERY_PIECE(LOW_WORDS));
    const words high23 = SHUFFLE(words, v[2], v[3], EVERY_PIECE(HIGH_WORDS));
    v[0] = SHUFFLE(words, low01, low23, EVERY_PIECE(LOW_PAIRS));
    v[1] = SHUFFLE(words, low01, low23, EVERY_PIECE(HIGH_PAIRS));
    v[2] = SHUFFLE(words, high01, high23, EVERY_PIECE(LOW_PAIRS));
    v[3] = SHUFFLE(words, high01, high23, EVERY_PIECE(HIGH_PAIRS));
}

/* ---- loads and stores ---- */

ALWAYS_INLINE piece load_piece(const uint8_t *bytes)
{
    piece p;
#if DIMG_BIG_ENDIAN
    p = (piece){dimg_load32(bytes), dimg_load32(bytes + 4), dimg_load32(bytes + 8), dimg_load32(bytes + 12)};
#else
    memcpy(&p, bytes, sizeof p);
#endif
    return p;
}

/* A vector of the pieces at `offset` of inputs k, 4 + k, 8 + k, ... */
ALWAYS_INLINE words load_pieces(const uint8_t *const *inputs, size_t offset)
{
#if LANES == 4
    return load_piece(inputs[0] + offset);
#elif LANES == 8 && (defined(__clang__) || __GNUC__ >= 12)
    return __builtin_shufflevector(load_piece(inputs[0] + offset), load_piece(inputs[4] + offset),
                                   0, 1, 2, 3, 4, 5, 6, 7);
#elif LANES == 16 && (defined(__clang__) || __GNUC__ >= 12)
    typedef uint32_t half __attribute__((vector_size(2 * PIECE_BYTES)));
    const half low = __builtin_shufflevector(load_piece(inputs[0] + offset), load_piece(inputs[4] + offset),
                                             0, 1, 2, 3, 4, 5, 6, 7);
    const half high = __builtin_shufflevector(load_piece(inputs[8] + offset), load_piece(inputs[12] + offset),
                                              0, 1, 2, 3, 4, 5, 6, 7);
    return __builtin_shufflevector(low, high, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
#else
    pairs joined = {0};
    for (size_t g = 0; g < PIECES; g++) {
        const pair p = (pair)load_piece(inputs[4 * g] + offset);
        joined[2 * g] = p[0];
        joined[2 * g + 1] = p[1];
    }
    return (words)joined;
#endif
}

/* m[w] becomes word w of the 64 bytes at `offset` of every input. */
ALWAYS_INLINE void load_messages(const uint8_t *const *inputs, size_t offset, words m[16])
{
    for (size_t column = 0; column < 4; column++) {
        words *v = m + 4 * column;
        for (size_t k = 0; k < 4; k++)
            v[k] = load_pieces(inputs + k, offset + PIECE_BYTES * column);
        transpose_pieces(v);
    }
}

/* Ask for the bytes that most likely come next: chunks that follow these at once. Without it, data that is in no cache is
 * hashed at 3.3 GB/s instead of 3.75. The address is a number here, for it may lie past the end of the data. */
ALWAYS_INLINE void prefetch_ahead(const uint8_t *const *inputs, size_t offset)
{
    for (size_t i = 0; i < LANES; i++)
        __builtin_prefetch((const void *)((uintptr_t)inputs[i] + offset + LANES * DIMG_CHUNK_BYTES));
}

/* The reverse: lane i of h[0..8) becomes the i-th chaining value, for the first `count` lanes. */
ALWAYS_INLINE void store_cvs(words h[8], uint8_t *out_cvs, size_t count)
{
    for (size_t column = 0; column < 2; column++) {
        transpose_pieces(h + 4 * column);
        for (size_t lane = 0; lane < count; lane++) {
            const words from = h[4 * column + lane % 4];
            uint8_t *to = out_cvs + DIMG_CV_BYTES * lane + PIECE_BYTES * column;
            for (size_t w = 0; w < 4; w++)
                dimg_store32(to + 4 * w, from[4 * (lane / 4) + w]);
        }
    }
}

/* ---- the compression function (the paper's section 2.2) ---- */

ALWAYS_INLINE words broadcast(uint32_t word)
{
    return (words){0} + word;
}

/* Have the message in memory, to be added from there. Pays where a vector operation can take one operand from memory. */
#if defined(__x86_64__) && LANES < 16 && !defined(__clang__)
#define KEEP_IN_MEMORY(array) __asm__("" : "+m"(array))
#else
#define KEEP_IN_MEMORY(array) ((void)0)
#endif

ALWAYS_INLINE words shift_rotate(words x, int bits)
{
    return (x >> bits) | (x << (32 - bits));
}

ALWAYS_INLINE words rotate16(words x)
{
#if BYTE_SHUFFLES
    return (words)SHUFFLE(octets, (octets)x, (octets)x, EVERY_OCTET(ROTATE16));
#else
    return shift_rotate(x, 16);
#endif
}

ALWAYS_INLINE words rotate8(words x)
{
#if BYTE_SHUFFLES
    return (words)SHUFFLE(octets, (octets)x, (octets)x, EVERY_OCTET(ROTATE8));
#else
    return shift_rotate(x, 8);
#endif
}

/* Four mixings that do not depend on each other, step by step, so that a processor always has four to work at. */
#define STEP4(statement) { enum { j = 0 }; statement; } { enum { j = 1 }; statement; } \
                         { enum { j = 2 }; statement; } { enum { j = 3 }; statement; }

ALWAYS_INLINE void mix4(words *const a[4], words *const b[4], words *const c[4], words *const d[4],
                        const words x[4], const words y[4])
{
    STEP4(*a[j] += x[j])
    STEP4(*a[j] += *b[j])
    STEP4(*d[j] = rotate16(*d[j] ^ *a[j]))
    STEP4(*c[j] += *d[j])
    STEP4(*b[j] = shift_rotate(*b[j] ^ *c[j], 12))
    STEP4(*a[j] += y[j])
    STEP4(*a[j] += *b[j])
    STEP4(*d[j] = rotate8(*d[j] ^ *a[j]))
    STEP4(*c[j] += *d[j])
    STEP4(*b[j] = shift_rotate(*b[j] ^ *c[j], 7))
}

#define FOUR(v, i0, i1, i2, i3) (words *const[4]){&v[i0], &v[i1], &v[i2], &v[i3]}
#define ROUND(a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14, a15)                 \
    mix4(FOUR(v, 0, 1, 2, 3), FOUR(v, 4, 5, 6, 7), FOUR(v, 8, 9, 10, 11), FOUR(v, 12, 13, 14, 15),  \
         (const words[4]){m[a0], m[a2], m[a4], m[a6]}, (const words[4]){m[a1], m[a3], m[a5], m[a7]});    \
    mix4(FOUR(v, 0, 1, 2, 3), FOUR(v, 5, 6, 7, 4), FOUR(v, 10, 11, 8, 9), FOUR(v, 15, 12, 13, 14),  \
         (const words[4]){m[a8], m[a10], m[a12], m[a14]}, (const words[4]){m[a9], m[a11], m[a13], m[a15]});

/* Hash LANES inputs; lane i's chaining value ends up in lane i of h[0..8). */
ALWAYS_INLINE void hash_lanes(const dimg_hash_shape *shape, const uint8_t *const *inputs, words counters, words h[8])
{
    for (size_t i = 0; i < 8; i++)
        h[i] = broadcast(shape->key[i]);
    for (size_t message = 0; message < shape->message_count; message++) {
        uint32_t flags = shape->flags;
        if (message == 0)
            flags |= shape->first_flags;
        if (message + 1 == shape->message_count)
            flags |= shape->last_flags;
        prefetch_ahead(inputs, DIMG_MESSAGE_BYTES * message);
        words m[16];
        load_messages(inputs, DIMG_MESSAGE_BYTES * message, m);
        KEEP_IN_MEMORY(m);
        words v[16] = {h[0], h[1], h[2], h[3], h[4], h[5], h[6], h[7],
                       broadcast(DIMG_IV0), broadcast(DIMG_IV1), broadcast(DIMG_IV2), broadcast(DIMG_IV3),
                       counters, broadcast(0), broadcast(DIMG_MESSAGE_BYTES), broadcast(flags)};
        DIMG_EACH_ROUND(ROUND)
        for (size_t i = 0; i < 8; i++)
            h[i] = v[i] ^ v[i + 8];
    }
}

void HASH_INPUTS(const dimg_hash_shape *shape, const uint8_t *const *inputs, const uint32_t *counters,
                 size_t input_count, uint8_t *out_cvs)
{
    for (size_t done = 0; done < input_count; done += LANES) {
        const size_t count = input_count - done < LANES ? input_count - done : LANES;
        const uint8_t *lanes[LANES];
        words lane_counters = {0}, h[8];
        /* Lanes past the end repeat the last input; what they come to is not stored. */
        for (size_t i = 0; i < LANES; i++) {
            const size_t from = done + (i < count ? i : count - 1);
            lanes[i] = inputs[from];
            lane_counters[i] = counters[from];
        }
        hash_lanes(shape, lanes, lane_counters, h);
        store_cvs(h, out_cvs + DIMG_CV_BYTES * done, count);
    }
}
