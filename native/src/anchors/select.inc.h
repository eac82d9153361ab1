/* SPDX-License-Identifier: Apache-2.0
 *
 * Which positions of a buffer are anchors? A template: each path's .c file defines two macros and includes this once.
 *
 *   SELECT_ANCHORS  name of the function to define (see anchors.h)
 *   LANE_MASK(hits) bit i: lane i of a vector of words that are all ones or zero
 *
 * Whether a position is one follows from the 8 bytes from it on, by two multiplications, so that neighbours do not wait for each
 * other as they do in a rolling hash: 32 positions are four vectors of 8, one for each remainder by 4. */
#pragma GCC diagnostic ignored "-Wpsabi" /* no vector leaves this file */

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "anchors.h"

typedef uint32_t words __attribute__((vector_size(32)));

enum { STEP = 32 };

/* Little-endian words, as `dimg_load32` loads them. */
static inline words load_words(const uint8_t *bytes)
{
    words loaded;
    memcpy(&loaded, bytes, sizeof loaded);
    if (DIMG_BIG_ENDIAN)
        loaded = loaded >> 24 | (loaded >> 8 & 0xFF00u) | (loaded << 8 & 0xFF0000u) | loaded << 24;
    return loaded;
}

/* Lanes of -1 where the position is selected: that of lane i is 4 * i bytes after `bytes`. */
static inline words select_lanes(const uint8_t *bytes, int shift)
{
    const words value = load_words(bytes) * DIMG_ANCHOR_LOW + load_words(bytes + 4) * DIMG_ANCHOR_HIGH + DIMG_ANCHOR_OFFSET;
    return (words)(value >> shift == 0);
}

static inline int is_any(const words hits[4])
{
    const words joined = hits[0] | hits[1] | hits[2] | hits[3];
    uint64_t parts[4];
    memcpy(parts, &joined, sizeof parts);
    return (parts[0] | parts[1] | parts[2] | parts[3]) != 0;
}

size_t SELECT_ANCHORS(const uint8_t *data, size_t position_count, int shift, uint32_t *out, size_t capacity)
{
    size_t found = 0;
    size_t next = 0; /* the first position that may be selected: anchors keep a distance */
    size_t p = 0;
    for (; p + STEP <= position_count; p += STEP) {
        words hits[4];
        for (size_t i = 0; i < 4; i++)
            hits[i] = select_lanes(data + p + i, shift);
        if (!is_any(hits))
            continue;
        uint64_t mask = 0; /* bit 8 * i + k: position 4 * k + i */
        for (size_t i = 0; i < 4; i++)
            mask |= (uint64_t)LANE_MASK(hits[i]) << 8 * i;
        uint32_t selected = 0;
        for (; mask != 0; mask &= mask - 1) {
            const int bit = __builtin_ctzll(mask);
            selected |= (uint32_t)1 << (4 * (bit % 8) + bit / 8);
        }
        for (; selected != 0; selected &= selected - 1) {
            const size_t position = p + (size_t)__builtin_ctz(selected);
            if (position < next)
                continue;
            if (found == capacity)
                return found;
            out[found++] = (uint32_t)position;
            next = position + DIMG_ANCHOR_DISTANCE;
        }
    }
    for (; p < position_count; p++) {
        if (p < next || !dimg_is_anchor(data + p, shift))
            continue;
        if (found == capacity)
            return found;
        out[found++] = (uint32_t)p;
        next = p + DIMG_ANCHOR_DISTANCE;
    }
    return found;
}
