/* SPDX-License-Identifier: Apache-2.0
 *
 * What the files of the digest kernel share: the constants of BLAKE3, and the one function each code path supplies.
 *
 * Source  J. O'Connor, J.-P. Aumasson, S. Neves, Z. Wilcox-O'Hearn, "BLAKE3: one function, fast everywhere" (2021):
 *         section 2.1 (tree), 2.2 (compression), table 1 (initial value), table 2 (permutation), table 3 (flags). */
#ifndef DIMG_DIGEST_BLAKE3_H
#define DIMG_DIGEST_BLAKE3_H

#include <stddef.h>
#include <stdint.h>

enum {
    DIMG_KEY_BYTES = 32,
    DIMG_CV_BYTES = 32,             /* a chaining value: what a chunk or a node of the tree comes to */
    DIMG_MESSAGE_BYTES = 64,        /* what one compression takes in */
    DIMG_CHUNK_BYTES = 1024,        /* a leaf of the tree */
    DIMG_CHUNK_MESSAGES = DIMG_CHUNK_BYTES / DIMG_MESSAGE_BYTES
};

enum {
    DIMG_CHUNK_START = 1 << 0,
    DIMG_CHUNK_END = 1 << 1,
    DIMG_PARENT = 1 << 2,
    DIMG_ROOT = 1 << 3,
    DIMG_KEYED_HASH = 1 << 4
};

#define DIMG_IV0 0x6A09E667u
#define DIMG_IV1 0xBB67AE85u
#define DIMG_IV2 0x3C6EF372u
#define DIMG_IV3 0xA54FF53Au
#define DIMG_IV4 0x510E527Fu
#define DIMG_IV5 0x9B05688Cu
#define DIMG_IV6 0x1F83D9ABu
#define DIMG_IV7 0x5BE0CD19u

/* The message words of each of the seven rounds: table 2 of the paper applied again and again. ROUND(a0 .. a15). */
#define DIMG_EACH_ROUND(ROUND)                                    \
    ROUND(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)   \
    ROUND(2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)   \
    ROUND(3, 4, 10, 12, 13, 2, 7, 14, 6, 5, 9, 0, 11, 15, 8, 1)   \
    ROUND(10, 7, 12, 9, 14, 3, 13, 15, 4, 0, 11, 2, 5, 8, 1, 6)   \
    ROUND(12, 13, 9, 11, 15, 10, 14, 8, 7, 2, 5, 3, 0, 1, 6, 4)   \
    ROUND(9, 14, 11, 5, 8, 12, 15, 1, 13, 3, 0, 10, 2, 6, 4, 7)   \
    ROUND(11, 15, 5, 0, 1, 9, 8, 6, 14, 10, 2, 12, 3, 4, 7, 13)

/* How to hash inputs that are all of one kind: whole chunks, or pairs of chaining values. */
typedef struct {
    uint32_t key[8];
    size_t message_count;           /* messages of 64 bytes in each input: 16 for a chunk, 1 for a parent */
    uint32_t flags, first_flags, last_flags;
} dimg_hash_shape;

/* Hash inputs[0 .. input_count), each 64 * message_count bytes, to a chaining value of 32 bytes each, one after another
 * at `out_cvs` (which must not overlap an input). counters[i] is the input's chunk counter. Any count. */
typedef void dimg_hash_inputs(const dimg_hash_shape *shape, const uint8_t *const *inputs, const uint32_t *counters,
                              size_t input_count, uint8_t *out_cvs);

dimg_hash_inputs dimg_hash_inputs_portable;
dimg_hash_inputs dimg_hash_inputs_sse41;
dimg_hash_inputs dimg_hash_inputs_avx2;
dimg_hash_inputs dimg_hash_inputs_avx512;
dimg_hash_inputs dimg_hash_inputs_neon;

/* The function of a path, or NULL when this processor or this build has none. */
dimg_hash_inputs *dimg_find_path(int path);

/* One compression, one lane: `cv` takes in `message` (message_bytes of it count) and becomes the first half of the output. */
void dimg_compress(uint32_t cv[8], const uint8_t message[DIMG_MESSAGE_BYTES], uint32_t message_bytes, uint32_t counter,
                   uint32_t flags);

#endif
