/* SPDX-License-Identifier: Apache-2.0
 *
 * With whatever vectors the build's own target has. */
#define SELECT_ANCHORS dimg_select_anchors_portable
#define LANE_MASK(hits) gather_lanes(&(hits))
#include <stdint.h>

static inline uint32_t gather_lanes(const uint32_t __attribute__((vector_size(32))) *hits)
{
    uint32_t mask = 0;
    for (int i = 0; i < 8; i++)
        mask |= ((*hits)[i] & 1u) << i;
    return mask;
}

#include "select.inc.h"
