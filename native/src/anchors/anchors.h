/* SPDX-License-Identifier: Apache-2.0
 *
 * What makes a position an anchor, for anchors.c and the paths of select.inc.h. */
#ifndef DIMG_ANCHORS_H
#define DIMG_ANCHORS_H

#include <stddef.h>
#include <stdint.h>

#include "../common/bytes.h"

/* Odd, and otherwise arbitrary; the offset keeps positions in zeros from being selected. */
#define DIMG_ANCHOR_LOW 0x9E3779B1u
#define DIMG_ANCHOR_HIGH 0x85EBCA77u
#define DIMG_ANCHOR_OFFSET 0xC2B2AE3Du

enum {
    DIMG_ANCHOR_WINDOW = 32,  /* bytes that name an anchor */
    DIMG_ANCHOR_DISTANCE = 16 /* between anchors, at least: repetitive content cannot make too many */
};

static inline int dimg_is_anchor(const uint8_t *bytes, int shift)
{
    const uint32_t value = dimg_load32(bytes) * DIMG_ANCHOR_LOW + dimg_load32(bytes + 4) * DIMG_ANCHOR_HIGH + DIMG_ANCHOR_OFFSET;
    return value >> shift == 0;
}

/* Write up to `capacity` of the anchors among positions [0, position_count) to `out`, ascending; returns how many. Reads up to
 * 32 + 8 bytes past the last position. */
typedef size_t dimg_select_anchors(const uint8_t *data, size_t position_count, int shift, uint32_t *out, size_t capacity);

dimg_select_anchors dimg_select_anchors_portable;
dimg_select_anchors dimg_select_anchors_avx2;

#endif
