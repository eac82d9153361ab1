/* SPDX-License-Identifier: Apache-2.0
 *
 * What the encoder and the decoder of deltas share. docs/format.md, "Delta body", has the bytes and uses the same words.
 *
 * Sources and content are one row of positions, the sources first. The content is made front to back by operations, each of
 * which adds some new bytes and then copies bytes that lie `distance` before their new position, either in the sources or in
 * the content. */
#ifndef DIMG_DELTA_H
#define DIMG_DELTA_H

#include <string.h>

#include "../../include/dimg.h"
#include "../common/bytes.h"

enum {
    RECENT = 3,              /* kinds 0 to 2 of a copy: at one of so many latest distances */
    KIND_WITHIN = RECENT,    /* at a new distance, from the content */
    KIND_SOURCE,             /* from a new position in the sources */
    KIND_BITS = 3,
    TOKEN_ADDED = 31,        /* so many added bytes or more: a varint says how many more */
    MAX_SHORT = 32,          /* added bytes: one is single, up to so many are short, more are long */
    FLAG_SINGLES_DIFFER = 1, /* single bytes are stored as differences */
    FLAG_SHORTS_DIFFER = 2,
    ALL_FLAGS = 3,
    NARROW_BYTES = 1 << 23   /* sources and content up to this: places have 3 bytes, else 4 */
};

/* The distances of the latest copies, latest first. */
typedef struct {
    uint32_t distance[RECENT];
} recents;

static const recents FIRST_RECENTS = {{1, 2, 4}};

static inline uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static inline unsigned place_bytes_of(size_t total_bytes)
{
    return total_bytes <= NARROW_BYTES ? 3 : 4;
}

/* Move the distance of a copy to the front; a new one takes the place of the last. */
static inline void note_distance(recents *latest, unsigned kind, uint32_t distance)
{
    if (kind == 0)
        return;
    if (kind != 1)
        latest->distance[2] = latest->distance[1];
    latest->distance[1] = latest->distance[0];
    latest->distance[0] = distance;
}

/* Whether `count` bytes added at `position` are single or short, and have bytes `distance` before them to differ from, all in the
 * sources or all in the content. */
static inline int has_base(uint32_t position, uint32_t count, uint32_t distance, uint32_t source_bytes)
{
    if (count > MAX_SHORT || distance > position)
        return 0;
    const uint32_t base = position - distance;
    return base >= source_bytes || count <= source_bytes - base;
}

#endif
