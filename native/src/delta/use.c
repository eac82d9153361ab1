/* SPDX-License-Identifier: Apache-2.0
 *
 * How much a delta takes from each block of its sources: what nothing or little is taken from need not be a source. */
#include "operations.h"

static void note_use(uint32_t *used_bytes, unsigned block_shift, uint32_t start, uint32_t count)
{
    while (count > 0) {
        const uint32_t left_in_block = (1u << block_shift) - (start & ((1u << block_shift) - 1));
        const uint32_t part = least(count, left_in_block);
        used_bytes[start >> block_shift] += part;
        start += part;
        count -= part;
    }
}

int dimg_count_delta_use(const uint8_t *body, size_t body_bytes, size_t source_bytes, size_t content_bytes, unsigned block_shift,
                         uint32_t *used_bytes, size_t block_count)
{
    if (source_bytes > DIMG_DELTA_MAX_BYTES || content_bytes > DIMG_DELTA_MAX_BYTES - source_bytes || block_shift > 30
        || block_count != (source_bytes + ((size_t)1 << block_shift) - 1) >> block_shift)
        return DIMG_BAD_ARGUMENT;
    body_parts from;
    progress to = start_progress(source_bytes, content_bytes);
    int status = split_body((stream){body, body + body_bytes}, source_bytes + content_bytes, &from);
    memset(used_bytes, 0, sizeof *used_bytes * block_count);
    while (status == DIMG_OK && from.operations.at < from.operations.end) {
        operation next;
        if ((status = take_operation(&from, &to, &next)) != DIMG_OK)
            break;
        const uint32_t position = to.source_bytes + to.made;
        if (has_base(position, next.count, next.distance, to.source_bytes) && position - next.distance < to.source_bytes)
            note_use(used_bytes, block_shift, position - next.distance, next.count);
        note_added(&to, &next);
        if (start_of_copy(&to, &next) < to.source_bytes)
            note_use(used_bytes, block_shift, start_of_copy(&to, &next), next.length);
        note_copied(&to, &next);
    }
    return status;
}
