/* SPDX-License-Identifier: Apache-2.0
 *
 * Digests of blocks: keyed BLAKE3, cut to 16 bytes.
 *
 * A 4 KiB block has four chunks, too few to fill the lanes of a wide processor. So blocks are taken a group at a time: the
 * chunks of all non-zero blocks of the group are hashed side by side whatever block they belong to, then all their parents,
 * level by level. Only the last few inputs of a level leave lanes empty, and a group has up to 1024 chunks.
 *
 * Memory  A group's chaining values: 32 KiB for one level, 22 KiB for the next, on the stack.
 * Limits  A tree with an odd level (a block of 3 KiB, say) hashes its parents alone: slower, but no block size that deltaimg allows has one.
 * Always  All blocks of a call have one size, so all trees have one shape and the root flag is a property of the level.
 * Source  See blake3.h. */
#include <string.h>

#include "../../include/dimg.h"
#include "../common/bytes.h"
#include "../common/digests.h"
#include "blake3.h"

enum {
    MAX_BYTES = 1 << 20,
    GROUP_CHUNKS = MAX_BYTES / DIMG_CHUNK_BYTES,
    /* What remains of a group one level up: most when trees have three nodes, two of them above. */
    HALF_GROUP_CHUNKS = (GROUP_CHUNKS * 2 + 2) / 3,
    BATCH = 64 /* inputs handed to a path at once: a multiple of any path's lanes */
};

typedef struct {
    dimg_hash_inputs *hash_inputs;
    uint32_t key[8];
    uint32_t mode; /* flags of every compression */
} hasher;

/* Inputs waiting to be hashed, whose chaining values go to `out_cvs` in order. */
typedef struct {
    const hasher *by;
    dimg_hash_shape shape;
    const uint8_t *inputs[BATCH];
    uint32_t counters[BATCH];
    size_t count;
    uint8_t *out_cvs;
} batch;

static int start_hasher(hasher *h, int path, const uint8_t *key)
{
    static const uint32_t plain[8] = {DIMG_IV0, DIMG_IV1, DIMG_IV2, DIMG_IV3, DIMG_IV4, DIMG_IV5, DIMG_IV6, DIMG_IV7};
    h->hash_inputs = dimg_find_path(path);
    h->mode = key != NULL ? DIMG_KEYED_HASH : 0;
    for (size_t i = 0; i < 8; i++)
        h->key[i] = key != NULL ? dimg_load32(key + 4 * i) : plain[i];
    return h->hash_inputs != NULL;
}

static void start_batch(batch *b, const hasher *by, size_t message_count, uint32_t flags, uint8_t *out_cvs)
{
    b->by = by;
    memcpy(b->shape.key, by->key, sizeof b->shape.key);
    b->shape.message_count = message_count;
    b->shape.flags = by->mode | flags;
    b->shape.first_flags = b->shape.last_flags = 0;
    b->count = 0;
    b->out_cvs = out_cvs;
}

static void start_chunk_batch(batch *b, const hasher *by, int is_root, uint8_t *out_cvs)
{
    start_batch(b, by, DIMG_CHUNK_MESSAGES, 0, out_cvs);
    b->shape.first_flags = DIMG_CHUNK_START;
    b->shape.last_flags = is_root ? DIMG_CHUNK_END | DIMG_ROOT : DIMG_CHUNK_END;
}

static void flush_batch(batch *b)
{
    b->by->hash_inputs(&b->shape, b->inputs, b->counters, b->count, b->out_cvs);
    b->out_cvs += DIMG_CV_BYTES * b->count;
    b->count = 0;
}

static inline void add_input(batch *b, const uint8_t *input, uint32_t counter)
{
    b->inputs[b->count] = input;
    b->counters[b->count] = counter;
    if (++b->count == BATCH)
        flush_batch(b);
}

/* Reduce `tree_count` trees of `width` nodes each, one tree after another in `cvs`, to their roots. `cvs` and `spare` take
 * turns; returns the one that holds the roots. */
static uint8_t *reduce_trees(const hasher *by, uint8_t *cvs, uint8_t *spare, size_t tree_count, size_t width)
{
    while (width > 1) {
        const size_t pairs = width / 2, above = (width + 1) / 2;
        const uint32_t flags = above == 1 ? DIMG_PARENT | DIMG_ROOT : DIMG_PARENT;
        batch b;
        start_batch(&b, by, 1, flags, spare);
        for (size_t tree = 0; tree < tree_count; tree++) {
            const uint8_t *nodes = cvs + DIMG_CV_BYTES * width * tree;
            for (size_t pair = 0; pair < pairs; pair++)
                add_input(&b, nodes + DIMG_MESSAGE_BYTES * pair, 0);
            if (above > pairs) { /* the odd node moves up as it is, to its place among the parents */
                flush_batch(&b);
                memcpy(b.out_cvs, nodes + DIMG_CV_BYTES * (width - 1), DIMG_CV_BYTES);
                b.out_cvs += DIMG_CV_BYTES;
            }
        }
        flush_batch(&b);
        uint8_t *const parents = spare;
        spare = cvs;
        cvs = parents;
        width = above;
    }
    return cvs;
}

/* Digest the non-zero ones of a group's blocks; zero ones get their digest of zeroes here. */
static void digest_group(const hasher *by, const uint8_t *data, size_t block_count, size_t block_bytes, uint8_t *out_digests)
{
    const size_t width = block_bytes / DIMG_CHUNK_BYTES;
    uint8_t cvs[GROUP_CHUNKS * DIMG_CV_BYTES], spare[HALF_GROUP_CHUNKS * DIMG_CV_BYTES];
    uint16_t hashed[GROUP_CHUNKS];
    size_t hashed_count = 0;
    batch b;
    start_chunk_batch(&b, by, width == 1, cvs);
    for (size_t block = 0; block < block_count; block++) {
        const uint8_t *chunks = data + block * block_bytes;
        if (dimg_is_zero(chunks, block_bytes)) {
            memset(out_digests + DIMG_DIGEST_BYTES * block, 0, DIMG_DIGEST_BYTES);
            continue;
        }
        hashed[hashed_count++] = (uint16_t)block;
        for (size_t chunk = 0; chunk < width; chunk++)
            add_input(&b, chunks + DIMG_CHUNK_BYTES * chunk, (uint32_t)chunk);
    }
    flush_batch(&b);
    const uint8_t *roots = reduce_trees(by, cvs, spare, hashed_count, width);
    for (size_t i = 0; i < hashed_count; i++)
        memcpy(out_digests + DIMG_DIGEST_BYTES * hashed[i], roots + DIMG_CV_BYTES * i, DIMG_DIGEST_BYTES);
}

int dimg_digest_blocks(int path, const uint8_t *key, const uint8_t *data, size_t block_count, size_t block_bytes, uint8_t *out_digests)
{
    hasher h;
    if (block_bytes == 0 || block_bytes % DIMG_CHUNK_BYTES != 0 || block_bytes > MAX_BYTES || key == NULL)
        return DIMG_BAD_ARGUMENT;
    if (block_count > SIZE_MAX / block_bytes || !start_hasher(&h, path, key))
        return DIMG_BAD_ARGUMENT;
    const size_t group = MAX_BYTES / block_bytes;
    for (size_t done = 0; done < block_count; done += group) {
        const size_t count = block_count - done < group ? block_count - done : group;
        digest_group(&h, data + done * block_bytes, count, block_bytes, out_digests + DIMG_DIGEST_BYTES * done);
    }
    return DIMG_OK;
}

/* The chaining value of one chunk of 0 to 1024 bytes. */
static void hash_chunk(const hasher *by, const uint8_t *data, size_t data_bytes, uint32_t counter, uint32_t last_flags,
                       uint8_t *out_cv)
{
    uint32_t cv[8];
    size_t done = 0;
    uint32_t flags = by->mode | DIMG_CHUNK_START;
    memcpy(cv, by->key, sizeof cv);
    while (data_bytes - done > DIMG_MESSAGE_BYTES) {
        dimg_compress(cv, data + done, DIMG_MESSAGE_BYTES, counter, flags);
        flags = by->mode;
        done += DIMG_MESSAGE_BYTES;
    }
    uint8_t last[DIMG_MESSAGE_BYTES] = {0};
    if (data_bytes > done)
        memcpy(last, data + done, data_bytes - done);
    dimg_compress(cv, last, (uint32_t)(data_bytes - done), counter, flags | DIMG_CHUNK_END | last_flags);
    for (size_t i = 0; i < 8; i++)
        dimg_store32(out_cv + 4 * i, cv[i]);
}

int dimg_digest_buffer(int path, const uint8_t *key, const uint8_t *data, size_t data_bytes, uint8_t *out, size_t out_bytes)
{
    hasher h;
    uint8_t cvs[GROUP_CHUNKS * DIMG_CV_BYTES], spare[HALF_GROUP_CHUNKS * DIMG_CV_BYTES];
    if (data_bytes > MAX_BYTES || out_bytes > DIMG_CV_BYTES || !start_hasher(&h, path, key))
        return DIMG_BAD_ARGUMENT;
    /* The last chunk may be short (or, of an empty buffer, empty); those before it are whole and share lanes. */
    const size_t whole = data_bytes == 0 ? 0 : (data_bytes - 1) / DIMG_CHUNK_BYTES;
    batch b;
    start_chunk_batch(&b, &h, 0, cvs);
    for (size_t chunk = 0; chunk < whole; chunk++)
        add_input(&b, data + DIMG_CHUNK_BYTES * chunk, (uint32_t)chunk);
    flush_batch(&b);
    hash_chunk(&h, whole == 0 ? data : data + DIMG_CHUNK_BYTES * whole, data_bytes - DIMG_CHUNK_BYTES * whole,
               (uint32_t)whole, whole == 0 ? DIMG_ROOT : 0, cvs + DIMG_CV_BYTES * whole);
    if (out_bytes > 0)
        memcpy(out, reduce_trees(&h, cvs, spare, 1, whole + 1), out_bytes);
    return DIMG_OK;
}
