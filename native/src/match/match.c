/* SPDX-License-Identifier: Apache-2.0
 *
 * Which slot holds this content? A hash table of slot numbers, open addressing, linear probing, keyed by the digests that stand
 * beside it. The table is 4 bytes an entry plus slack, the digests 16; both are far larger than a cache, so a lookup is two
 * cache misses. They are asked for ahead: a place of the table LOOKAHEAD entries ahead of its use, the digest that the
 * place names half of that.
 *
 * Always  A hit counts only when all 16 bytes agree. Slots in the table are checked against the number of digests: a table
 *         that does not belong to these digests gives BAD_SLOT, never a read outside of them.
 * Source  D. Knuth, "The Art of Computer Programming", vol. 3, section 6.4, algorithm L. */
#include <string.h>

#include "../../include/dimg.h"
#include "../common/bytes.h"
#include "../common/digests.h"

enum { ZERO_SLOT = 1, FIRST_SLOT = 2, LOOKAHEAD = 32 };

typedef struct {
    uint32_t *places;
    size_t mask; /* capacity - 1 */
} hash_table;

static int is_power_of_two(size_t n)
{
    return n != 0 && (n & (n - 1)) == 0;
}

/* Where the search for a digest begins. The multiplication (2^64 over the golden ratio) brings all 64 bits to bear. */
static inline size_t home_of(const hash_table *table, const uint8_t *digest)
{
    return (size_t)((dimg_load64(digest) * 0x9E3779B97F4A7C15u) >> 20) & table->mask;
}

static inline const uint8_t *digest_of(const uint8_t *digests, size_t slot)
{
    return digests + DIMG_DIGEST_BYTES * slot;
}

/* The place that holds `digest`, or the free one where it belongs, in *out_place. */
static int find_place(const hash_table *table, const uint8_t *digests, size_t digest_count, const uint8_t *digest, size_t *out_place)
{
    size_t place = home_of(table, digest);
    for (size_t probed = 0; probed <= table->mask; probed++, place = (place + 1) & table->mask) {
        const uint32_t slot = table->places[place];
        if (slot >= digest_count)
            return DIMG_BAD_SLOT;
        if (slot == 0 || dimg_is_same_digest(digest_of(digests, slot), digest)) {
            *out_place = place;
            return DIMG_OK;
        }
    }
    return DIMG_TABLE_FULL;
}

/* Ask for what entries i + LOOKAHEAD and i + LOOKAHEAD / 2 of `wanted` will need. */
static inline void prefetch_ahead(const hash_table *table, const uint8_t *digests, size_t digest_count,
                                  const uint8_t *wanted, size_t count, size_t i)
{
    if (i + LOOKAHEAD >= count)
        return;
    __builtin_prefetch(&table->places[home_of(table, digest_of(wanted, i + LOOKAHEAD))], 1);
    const uint32_t slot = table->places[home_of(table, digest_of(wanted, i + LOOKAHEAD / 2))];
    if (slot < digest_count)
        __builtin_prefetch(digest_of(digests, slot));
}

int dimg_insert_slots(uint32_t *table, size_t capacity, const uint8_t *digests, size_t digest_count, uint32_t first_slot, size_t count)
{
    if (!is_power_of_two(capacity))
        return DIMG_BAD_ARGUMENT;
    if (first_slot > digest_count || count > digest_count - first_slot || digest_count > (size_t)UINT32_MAX + 1)
        return DIMG_BAD_SLOT;
    const hash_table in = {.places = table, .mask = capacity - 1};
    const uint8_t *wanted = digest_of(digests, first_slot);
    for (size_t i = 0; i < count; i++) {
        const uint8_t *digest = digest_of(wanted, i);
        size_t place;
        prefetch_ahead(&in, digests, digest_count, wanted, count, i);
        if (first_slot + i < FIRST_SLOT || dimg_is_zero_digest(digest))
            continue;
        const int status = find_place(&in, digests, digest_count, digest, &place);
        if (status != DIMG_OK)
            return status;
        if (table[place] == 0)
            table[place] = (uint32_t)(first_slot + i);
    }
    return DIMG_OK;
}

/* The slot of one digest, made when it is unknown. */
static int match_digest(const hash_table *table, uint8_t *digests, size_t digest_capacity, size_t *digest_count,
                        const uint8_t *digest, uint32_t *out_slot)
{
    size_t place;
    if (dimg_is_zero_digest(digest)) {
        *out_slot = ZERO_SLOT;
        return DIMG_OK;
    }
    const int status = find_place(table, digests, *digest_count, digest, &place);
    if (status != DIMG_OK)
        return status;
    if (table->places[place] == 0) {
        if (*digest_count == digest_capacity)
            return DIMG_BUFFER_TOO_SMALL;
        memcpy(digests + DIMG_DIGEST_BYTES * *digest_count, digest, DIMG_DIGEST_BYTES);
        table->places[place] = (uint32_t)(*digest_count)++;
    }
    *out_slot = table->places[place];
    return DIMG_OK;
}

int dimg_match_digests(uint32_t *table, size_t capacity, uint8_t *digests, size_t digest_capacity, size_t *digest_count,
                       const uint8_t *wanted, size_t count, uint32_t *out_slots, size_t *out_done)
{
    *out_done = 0;
    if (!is_power_of_two(capacity) || digest_capacity > (size_t)UINT32_MAX + 1)
        return DIMG_BAD_ARGUMENT;
    if (*digest_count < FIRST_SLOT || *digest_count > digest_capacity)
        return DIMG_BAD_ARGUMENT;
    const hash_table in = {.places = table, .mask = capacity - 1};
    for (size_t i = 0; i < count; i++) {
        prefetch_ahead(&in, digests, *digest_count, wanted, count, i);
        const int status = match_digest(&in, digests, digest_capacity, digest_count, digest_of(wanted, i), &out_slots[i]);
        if (status != DIMG_OK)
            return status;
        *out_done = i + 1;
    }
    return DIMG_OK;
}
