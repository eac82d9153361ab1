/* SPDX-License-Identifier: Apache-2.0
 *
 * The streams of a delta as they are written, and the body that they make up. */
#ifndef DIMG_DELTA_STREAMS_H
#define DIMG_DELTA_STREAMS_H

#include "search.h"

typedef struct {
    uint8_t *start, *end;
} stream;

/* Added bytes both ways: when all are there, the more regular is taken. */
typedef struct {
    stream plain, differing;
} added_stream;

typedef struct {
    stream operations, longs;
    added_stream singles, shorts;
    uint32_t *places;
    uint32_t place_count;
    uint32_t source_end; /* of the latest copy out of the sources */
} streams;

static inline size_t length_of(const stream *of)
{
    return (size_t)(of->end - of->start);
}

static inline uint8_t *put_varint(uint8_t *to, uint32_t number)
{
    for (; number >= 128; number >>= 7)
        *to++ = (uint8_t)(number | 128);
    *to++ = (uint8_t)number;
    return to;
}

static inline void put_long(streams *to, const search *in, uint32_t start, uint32_t count)
{
    memcpy(to->longs.end, content_at(in, start), count);
    to->longs.end += count;
}

static inline void put_added(streams *to, const search *in, uint32_t start, uint32_t count, uint32_t distance)
{
    if (!has_base(start, count, distance, in->source_bytes)) {
        put_long(to, in, start, count);
        return;
    }
    const uint8_t *added = content_at(in, start), *base = bytes_at(in, start - distance);
    added_stream *kind = count == 1 ? &to->singles : &to->shorts;
    for (uint32_t i = 0; i < count; i++) {
        *kind->plain.end++ = added[i];
        *kind->differing.end++ = (uint8_t)(added[i] - base[i]);
    }
}

/* The kind of a copy, and its place where it has one. */
static inline unsigned put_place(streams *to, const search *in, uint32_t from, uint32_t distance)
{
    for (unsigned i = 0; i < RECENT; i++)
        if (in->latest.distance[i] == distance)
            return i;
    if (from >= in->source_bytes) {
        to->places[to->place_count++] = distance;
        return KIND_WITHIN;
    }
    const int32_t moved = (int32_t)(from - to->source_end);
    to->places[to->place_count++] = (uint32_t)moved << 1 ^ (uint32_t)(moved >> 31);
    return KIND_SOURCE;
}

/* Add what lies from `open` to `start`, then copy `length` bytes of `from` to there. */
static inline void put_operation(streams *to, search *in, uint32_t open, uint32_t start, uint32_t from, uint32_t length)
{
    const uint32_t count = start - open, distance = start - from;
    put_added(to, in, open, count, distance);
    const unsigned kind = put_place(to, in, from, distance);
    uint8_t *end = to->operations.end;
    *end++ = (uint8_t)(least(count, TOKEN_ADDED) << KIND_BITS | kind);
    if (count >= TOKEN_ADDED)
        end = put_varint(end, count - TOKEN_ADDED);
    to->operations.end = put_varint(end, length);
    if (from < in->source_bytes)
        to->source_end = from + length;
    note_distance(&in->latest, kind, distance);
}

/* Larger for bytes of which some are frequent. */
static uint64_t regularity_of(const stream *of)
{
    uint32_t counts[256] = {0};
    uint64_t sum = 0;
    for (const uint8_t *byte = of->start; byte < of->end; byte++)
        counts[*byte]++;
    for (int i = 0; i < 256; i++)
        sum += (uint64_t)counts[i] * counts[i];
    return sum;
}

static inline const stream *choose_way(const added_stream *of, uint8_t flag, uint8_t *flags)
{
    if (regularity_of(&of->plain) >= regularity_of(&of->differing))
        return &of->plain;
    *flags |= flag;
    return &of->differing;
}

static inline uint8_t *put_stream(uint8_t *to, const stream *from)
{
    memcpy(to, from->start, length_of(from));
    return to + length_of(from);
}

/* The lowest byte of every place, then the second of every place, and so on. */
static uint8_t *put_planes(uint8_t *to, const streams *from, unsigned place_bytes)
{
    for (unsigned plane = 0; plane < place_bytes; plane++)
        for (uint32_t i = 0; i < from->place_count; i++)
            *to++ = (uint8_t)(from->places[i] >> 8 * plane);
    return to;
}

/* Put the streams together, and say how long each part of the body is. */
static inline void put_body(const streams *from, unsigned place_bytes, uint8_t *body, size_t part_bytes[DIMG_DELTA_PARTS])
{
    uint8_t *ends[DIMG_DELTA_PARTS], *to = body + 1;
    *body = 0;
    const stream *singles = choose_way(&from->singles, FLAG_SINGLES_DIFFER, body);
    const stream *shorts = choose_way(&from->shorts, FLAG_SHORTS_DIFFER, body);
    to = put_varint(to, (uint32_t)length_of(&from->operations));
    to = put_varint(to, from->place_count);
    to = put_varint(to, (uint32_t)length_of(singles));
    to = put_varint(to, (uint32_t)length_of(shorts));
    ends[0] = put_stream(to, &from->operations);
    ends[1] = put_planes(ends[0], from, place_bytes);
    ends[2] = put_stream(ends[1], singles);
    ends[3] = put_stream(ends[2], shorts);
    ends[4] = put_stream(ends[3], &from->longs);
    for (int i = 0; i < DIMG_DELTA_PARTS; i++)
        part_bytes[i] = (size_t)(ends[i] - (i == 0 ? body : ends[i - 1]));
}

#endif
