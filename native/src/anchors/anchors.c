/* SPDX-License-Identifier: Apache-2.0
 *
 * Anchors: where similar content may be found. The bytes at a position decide whether it is an anchor, whatever their place
 * in a block; the 32 bytes from it on name it. A table remembers for each name the slot that holds it.
 *
 * The table is buckets of 8 places, a cache line each: a place is the low half of a name and a slot. A full bucket forgets one
 * of its places for a newcomer, so the table never grows and forgets evenly: with too little memory, sources are missed.
 *
 * Always  An answer of the table is a hint: 32 bits of a name are compared. Threads may find while one inserts: places are read
 *         and written whole.
 * Source  Sampling positions by their content, so that equal content is sampled equally wherever it is: U. Manber, "Finding
 *         Similar Files in a Large File System" (USENIX Winter 1994). */
#include <string.h>

#include "../../include/dimg.h"
#include "anchors.h"

enum { PLACES = 8, LOOKAHEAD = 16 };

static inline uint64_t rotate(uint64_t word, int by)
{
    return word << by | word >> (64 - by);
}

static inline uint64_t name_of(const uint8_t *bytes)
{
    uint64_t name = dimg_load64(bytes) * 0x9E3779B185EBCA87u;
    name = (rotate(name, 31) ^ dimg_load64(bytes + 8)) * 0xC2B2AE3D27D4EB4Fu;
    name = (rotate(name, 29) ^ dimg_load64(bytes + 16)) * 0x165667B19E3779F9u;
    name = (rotate(name, 33) ^ dimg_load64(bytes + 24)) * 0x85EBCA77C2B2AE63u;
    return name ^ name >> 32;
}

int dimg_collect_anchors(const uint8_t *data, size_t data_bytes, int shift,
                         uint64_t *out_names, uint32_t *out_positions, size_t capacity, size_t *out_count)
{
    if (data_bytes > UINT32_MAX || capacity < data_bytes / DIMG_ANCHOR_DISTANCE || shift < 0 || shift > 31)
        return DIMG_BAD_ARGUMENT;
    *out_count = 0;
    if (data_bytes < DIMG_ANCHOR_WINDOW + 8)
        return DIMG_OK;
    dimg_select_anchors *select = dimg_select_anchors_portable;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2"))
        select = dimg_select_anchors_avx2;
#endif
    const size_t selected = select(data, data_bytes - DIMG_ANCHOR_WINDOW - 8, shift, out_positions, capacity);
    size_t kept = 0;
    for (size_t i = 0; i < selected; i++) {
        const uint64_t name = name_of(data + out_positions[i]);
        if (kept > 0 && out_names[kept - 1] == name)
            continue;
        out_names[kept] = name;
        out_positions[kept++] = out_positions[i];
    }
    *out_count = kept;
    return DIMG_OK;
}

/* Where the bucket of a name begins. */
static inline size_t bucket_of(size_t bucket_count, uint64_t name)
{
    return PLACES * (size_t)((name >> 32) * bucket_count >> 32);
}

static inline uint64_t load_place(const uint64_t *place)
{
    return __atomic_load_n(place, __ATOMIC_RELAXED);
}

static int is_table(size_t bucket_count)
{
    return bucket_count != 0 && bucket_count <= UINT32_MAX;
}

int dimg_find_anchors(const uint64_t *table, size_t bucket_count, const uint64_t *names, size_t count, uint32_t *out_slots)
{
    if (!is_table(bucket_count))
        return DIMG_BAD_ARGUMENT;
    for (size_t i = 0; i < count; i++) {
        if (i + LOOKAHEAD < count)
            __builtin_prefetch(table + bucket_of(bucket_count, names[i + LOOKAHEAD]));
        const uint64_t *bucket = table + bucket_of(bucket_count, names[i]);
        out_slots[i] = 0;
        for (size_t k = 0; k < PLACES; k++) {
            const uint64_t place = load_place(&bucket[k]);
            if ((uint32_t)place == (uint32_t)names[i])
                out_slots[i] = (uint32_t)(place >> 32); /* a free place names slot 0 */
        }
    }
    return DIMG_OK;
}

int dimg_insert_anchors(uint64_t *table, size_t bucket_count, const uint64_t *names, const uint32_t *slots, size_t count)
{
    if (!is_table(bucket_count))
        return DIMG_BAD_ARGUMENT;
    for (size_t i = 0; i < count; i++) {
        if (i + LOOKAHEAD < count)
            __builtin_prefetch(table + bucket_of(bucket_count, names[i + LOOKAHEAD]), 1);
        if (slots[i] == 0)
            continue;
        uint64_t *bucket = table + bucket_of(bucket_count, names[i]);
        size_t chosen = (size_t)(names[i] >> 29) % PLACES; /* forgotten when no place is free */
        for (size_t k = PLACES; k-- > 0;) {
            const uint64_t place = load_place(&bucket[k]);
            if (place == 0)
                chosen = k;
            if ((uint32_t)place == (uint32_t)names[i] && place != 0) {
                chosen = k;
                break;
            }
        }
        __atomic_store_n(&bucket[chosen], (uint64_t)slots[i] << 32 | (uint32_t)names[i], __ATOMIC_RELAXED);
    }
    return DIMG_OK;
}
