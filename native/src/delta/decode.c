/* SPDX-License-Identifier: Apache-2.0
 *
 * Decoding a delta: content from its sources and a body that may be anything.
 *
 * Always  Nothing outside of the three buffers is touched; linear in content and body. */
#include "operations.h"

enum { ONCE = 16 }; /* bytes that a short copy moves at once, where there is room for them */

typedef struct {
    const uint8_t *sources;
    uint8_t *content;
    progress at;
} maker;

static inline const uint8_t *bytes_at(const maker *in, uint32_t position)
{
    return position < in->at.source_bytes ? in->sources + position : in->content + (position - in->at.source_bytes);
}

static inline int add_bytes(maker *to, body_parts *from, const operation *of)
{
    const uint32_t position = to->at.source_bytes + to->at.made;
    uint8_t *target = to->content + to->at.made;
    stream *added = &from->longs;
    uint8_t mask = 0;
    if (has_base(position, of->count, of->distance, to->at.source_bytes)) {
        added = of->count == 1 ? &from->singles : &from->shorts;
        mask = of->count == 1 ? from->single_mask : from->short_mask;
    }
    if (of->count > (size_t)(added->end - added->at))
        return DIMG_DELTA_ENDS;
    if (mask == 0) {
        memcpy(target, added->at, of->count);
    } else {
        const uint8_t *base = bytes_at(to, position - of->distance);
        for (uint32_t i = 0; i < of->count; i++)
            target[i] = (uint8_t)(added->at[i] + base[i]);
    }
    added->at += of->count;
    note_added(&to->at, of);
    return DIMG_OK;
}

static inline void copy_bytes(maker *to, const operation *of)
{
    const uint32_t from = start_of_copy(&to->at, of), source_bytes = to->at.source_bytes;
    const int is_source = from < source_bytes;
    const uint8_t *source = bytes_at(to, from);
    uint8_t *target = to->content + to->at.made;
    const int has_room = to->at.left >= ONCE && (is_source ? source_bytes - from >= ONCE : of->distance >= ONCE);
    note_copied(&to->at, of);
    if (of->length <= ONCE && has_room) {
        memcpy(target, source, ONCE); /* what is too much is made again later */
        return;
    }
    uint32_t left = of->length;
    uint32_t known = is_source ? left : of->distance; /* bytes from `source` on that are there: twice as many with each turn */
    while (left > 0) {
        const uint32_t part = least(left, known);
        memcpy(target, source, part);
        target += part;
        left -= part;
        known += part;
    }
}

int dimg_decode_delta(const uint8_t *sources, size_t source_bytes, const uint8_t *body, size_t body_bytes, uint8_t *content,
                      size_t content_bytes)
{
    if (source_bytes > DIMG_DELTA_MAX_BYTES || content_bytes > DIMG_DELTA_MAX_BYTES - source_bytes)
        return DIMG_BAD_ARGUMENT;
    body_parts from;
    maker to = {sources, content, start_progress(source_bytes, content_bytes)};
    int status = split_body((stream){body, body + body_bytes}, source_bytes + content_bytes, &from);
    while (status == DIMG_OK && from.operations.at < from.operations.end) {
        operation next;
        if ((status = take_operation(&from, &to.at, &next)) == DIMG_OK && (status = add_bytes(&to, &from, &next)) == DIMG_OK)
            copy_bytes(&to, &next);
    }
    if (status != DIMG_OK)
        return status;
    if (from.next_place != from.place_count || from.singles.at != from.singles.end || from.shorts.at != from.shorts.end)
        return DIMG_DELTA_ENDS;
    if ((size_t)(from.longs.end - from.longs.at) != to.at.left)
        return DIMG_DELTA_BAD_LENGTH;
    memcpy(content + to.at.made, from.longs.at, to.at.left);
    return DIMG_OK;
}
