/* SPDX-License-Identifier: Apache-2.0
 *
 * A delta body that may be anything, taken apart: its streams, and one operation after another.
 *
 * Always  Every count is compared with what is left before it is used, never added first, so nothing wraps. Each operation makes at
 *         least a byte. */
#ifndef DIMG_DELTA_OPERATIONS_H
#define DIMG_DELTA_OPERATIONS_H

#include "delta.h"

typedef struct {
    const uint8_t *at, *end;
} stream;

typedef struct {
    stream operations, singles, shorts, longs;
    const uint8_t *places; /* in planes, `place_count` apart */
    uint32_t place_count, next_place;
    unsigned place_bytes;
    uint8_t single_mask, short_mask; /* 255 where added bytes are differences, else 0 */
} body_parts;

/* How far the content is made. */
typedef struct {
    uint32_t source_bytes;
    uint32_t made, left; /* of the content */
    uint32_t source_end; /* of the latest copy out of the sources */
    recents latest;
} progress;

static inline progress start_progress(size_t source_bytes, size_t content_bytes)
{
    return (progress){(uint32_t)source_bytes, 0, (uint32_t)content_bytes, 0, FIRST_RECENTS};
}

typedef struct {
    unsigned kind;
    uint32_t count, length; /* added, then copied */
    uint32_t distance;
} operation;

/* At most four bytes, seven bits each, lowest first. */
static inline int take_varint(stream *from, uint32_t *out)
{
    uint32_t number = 0;
    for (int shift = 0; shift <= 21 && from->at < from->end; shift += 7) {
        const uint8_t byte = *from->at++;
        number |= (uint32_t)(byte & 127) << shift;
        if (byte < 128) {
            *out = number;
            return DIMG_OK;
        }
    }
    return from->at == from->end ? DIMG_DELTA_ENDS : DIMG_DELTA_BAD_LENGTH;
}

static inline int take_stream(stream *from, size_t bytes, stream *out)
{
    if (bytes > (size_t)(from->end - from->at))
        return DIMG_DELTA_ENDS;
    *out = (stream){from->at, from->at + bytes};
    from->at += bytes;
    return DIMG_OK;
}

static int split_body(stream body, size_t total_bytes, body_parts *out)
{
    uint32_t bytes[4];
    stream places = {NULL, NULL};
    if (body.at == body.end)
        return DIMG_DELTA_ENDS;
    const uint8_t flags = *body.at++;
    if (flags > ALL_FLAGS)
        return DIMG_DELTA_BAD_OPERATION;
    int status = DIMG_OK;
    for (int i = 0; i < 4 && status == DIMG_OK; i++)
        status = take_varint(&body, &bytes[i]);
    if (status != DIMG_OK)
        return status;
    *out = (body_parts){.place_count = bytes[1],
                        .place_bytes = place_bytes_of(total_bytes),
                        .single_mask = flags & FLAG_SINGLES_DIFFER ? 255 : 0,
                        .short_mask = flags & FLAG_SHORTS_DIFFER ? 255 : 0};
    if ((status = take_stream(&body, bytes[0], &out->operations)) != DIMG_OK
        || (status = take_stream(&body, (size_t)bytes[1] * out->place_bytes, &places)) != DIMG_OK
        || (status = take_stream(&body, bytes[2], &out->singles)) != DIMG_OK
        || (status = take_stream(&body, bytes[3], &out->shorts)) != DIMG_OK)
        return status;
    out->places = places.at;
    out->longs = body;
    return DIMG_OK;
}

static inline int take_place(body_parts *from, uint32_t *out)
{
    uint32_t place = 0;
    if (from->next_place == from->place_count)
        return DIMG_DELTA_ENDS;
    const uint8_t *byte = from->places + from->next_place++;
    for (unsigned plane = 0; plane < from->place_bytes; plane++, byte += from->place_count)
        place |= (uint32_t)*byte << 8 * plane;
    *out = place;
    return DIMG_OK;
}

/* Whether the copy lies before its new position, on the side where its kind says, and ends there. */
static inline int is_good_copy(const progress *to, const operation *of)
{
    const uint32_t position = to->source_bytes + to->made + of->count;
    if (of->distance == 0 || of->distance > position)
        return 0;
    const uint32_t from = position - of->distance;
    return from < to->source_bytes ? of->kind != KIND_WITHIN && of->length <= to->source_bytes - from : of->kind != KIND_SOURCE;
}

/* The next operation, which fits what is left and copies what is there. */
static inline int take_operation(body_parts *from, progress *to, operation *out)
{
    const uint8_t token = *from->operations.at++;
    uint32_t place = 0;
    int status;
    out->kind = token & ((1 << KIND_BITS) - 1);
    out->count = token >> KIND_BITS;
    if (out->kind > KIND_SOURCE)
        return DIMG_DELTA_BAD_OPERATION;
    if (out->count == TOKEN_ADDED) {
        if ((status = take_varint(&from->operations, &out->count)) != DIMG_OK)
            return status;
        out->count += TOKEN_ADDED;
    }
    if ((status = take_varint(&from->operations, &out->length)) != DIMG_OK)
        return status;
    if (out->length == 0 || out->count > to->left || out->length > to->left - out->count)
        return DIMG_DELTA_BAD_LENGTH;
    if (out->kind >= KIND_WITHIN && (status = take_place(from, &place)) != DIMG_OK)
        return status;
    if (out->kind < RECENT)
        out->distance = to->latest.distance[out->kind];
    else if (out->kind == KIND_WITHIN)
        out->distance = place;
    else /* modulo 2^32: what is wrong comes out too large */
        out->distance = to->source_bytes + to->made + out->count - (to->source_end + (place >> 1 ^ (0u - (place & 1))));
    if (!is_good_copy(to, out))
        return DIMG_DELTA_BAD_COPY;
    note_distance(&to->latest, out->kind, out->distance);
    return DIMG_OK;
}

/* Where the copy of an operation begins, once its added bytes are made. */
static inline uint32_t start_of_copy(const progress *to, const operation *of)
{
    return to->source_bytes + to->made - of->distance;
}

static inline void note_added(progress *to, const operation *of)
{
    to->made += of->count;
    to->left -= of->count;
}

static inline void note_copied(progress *to, const operation *of)
{
    const uint32_t from = start_of_copy(to, of);
    if (from < to->source_bytes)
        to->source_end = from + of->length;
    to->made += of->length;
    to->left -= of->length;
}

#endif
