/* SPDX-License-Identifier: Apache-2.0
 *
 * The best copy for a position of the content, by the bits that it saves.
 *
 * A hash table has positions by the 8 bytes there: those of the sources at regular steps, those of the content as they are
 * searched. A new one replaces what was there, so there is one candidate and no chain to follow. The latest distances are tried at
 * every position without the table: in data of regular layout (pages of databases, tables of programs) most of what is equal
 * lies there, often in pieces too short for the table.
 *
 * Always  8 bytes can be read at every position that is searched, and at every candidate.
 * Source  The latest distances: RFC 8878 (zstd), section 3.1.1.5, "Repeat Offsets". */
#ifndef DIMG_DELTA_SEARCH_H
#define DIMG_DELTA_SEARCH_H

#include "delta.h"

enum {
    WINDOW = 8,            /* bytes that are a key of the table: the shortest copy at a new distance */
    COST_ADDED = 5,        /* what an added byte costs, about, in bits */
    COST_RECENT = 6,       /* ... a copy at the latest distance; at one before it, a bit more */
    COST_PLACE = 24,       /* ... a copy at a new distance */
    SURE = 32,             /* a latest distance with so many bytes needs no look in the table */
    MIN_TABLE_LOG = 12,
    MAX_TABLE_LOG = 18,    /* 1 MiB: a core's own cache holds it */
    DENSE_BYTES = 1 << 20, /* sources up to this size are entered at every 4th position, larger ones at every 8th */
    NOWHERE = -1
};

typedef struct {
    const uint8_t *sources, *content;
    uint32_t source_bytes;
    uint32_t end; /* of the content, as a position */
    uint32_t *table;
    int shift; /* by which a hash becomes a place in the table */
    recents latest;
} search;

typedef struct {
    int gain;        /* bits saved; 0: no copy is worth its cost */
    uint32_t from;   /* the position to copy from */
    uint32_t length; /* equal bytes from the position searched on */
    uint32_t before; /* equal bytes before it; 0 if not looked for */
} match;

static inline const uint8_t *bytes_at(const search *in, uint32_t position)
{
    return position < in->source_bytes ? in->sources + position : in->content + (position - in->source_bytes);
}

static inline const uint8_t *content_at(const search *in, uint32_t position)
{
    return in->content + (position - in->source_bytes);
}

static inline uint32_t *place_of(const search *in, uint64_t word)
{
    return &in->table[word * 0x9E3779B97F4A7C15u >> in->shift];
}

/* How many of at most `most` bytes from `a` and from `b` on are equal. */
static inline uint32_t count_equal(const uint8_t *a, const uint8_t *b, uint32_t most)
{
    uint32_t count = 0;
    for (; most - count >= 8; count += 8) {
        const uint64_t differs = dimg_load64(a + count) ^ dimg_load64(b + count);
        if (differs != 0)
            return count + (uint32_t)(__builtin_ctzll(differs) >> 3);
    }
    while (count < most && a[count] == b[count])
        count++;
    return count;
}

/* How many of at most `most` bytes before `a` and before `b` are equal. */
static inline uint32_t count_equal_before(const uint8_t *a, const uint8_t *b, uint32_t most)
{
    uint32_t count = 0;
    for (; most - count >= 8; count += 8) {
        const uint64_t differs = dimg_load64(a - count - 8) ^ dimg_load64(b - count - 8);
        if (differs != 0)
            return count + (uint32_t)(__builtin_clzll(differs) >> 3);
    }
    while (count < most && *(a - count - 1) == *(b - count - 1))
        count++;
    return count;
}

/* Equal bytes from `at` and `from` on, of which a window's worth is known; a copy ends with the content, or with the sources. */
static inline uint32_t extend(const search *in, uint32_t at, uint32_t from)
{
    const uint32_t left = in->end - at;
    const uint32_t most = from < in->source_bytes ? least(left, in->source_bytes - from) : left;
    return WINDOW + count_equal(content_at(in, at) + WINDOW, bytes_at(in, from) + WINDOW, most - WINDOW);
}

/* Equal bytes before them; a copy begins not before `open`, from where on nothing is made yet, and on its own side. */
static inline uint32_t extend_before(const search *in, uint32_t at, uint32_t open, uint32_t from)
{
    const uint32_t most = least(at - open, from < in->source_bytes ? from : from - in->source_bytes);
    return count_equal_before(content_at(in, at), bytes_at(in, from), most);
}

/* How many bytes of a window are equal at a latest distance; 0 where the sources end in it. */
static inline uint32_t count_equal_recent(const search *in, uint32_t from, uint64_t word)
{
    if (from < in->source_bytes && in->source_bytes - from < WINDOW)
        return 0;
    const uint64_t differs = word ^ dimg_load64(bytes_at(in, from));
    return differs == 0 ? WINDOW : (uint32_t)__builtin_ctzll(differs) >> 3;
}

/* The longest copy at a latest distance; of equal ones that of the latest. It is worth its cost from two bytes on. */
static inline match find_recent(const search *in, uint32_t at, uint64_t word)
{
    uint32_t length[RECENT], best = 0;
    for (uint32_t i = 0; i < RECENT; i++) {
        length[i] = count_equal_recent(in, at - in->latest.distance[i], word);
        best = length[i] > length[best] ? i : best;
    }
    if (length[best] < 2)
        return (match){0, 0, 0, 0};
    if (length[best] == WINDOW) {
        for (uint32_t i = best; i < RECENT; i++) {
            if (length[i] == WINDOW)
                length[i] = extend(in, at, at - in->latest.distance[i]);
            best = length[i] > length[best] ? i : best;
        }
    }
    const int gain = (int)length[best] * COST_ADDED - COST_RECENT - (int)best;
    return (match){gain, at - in->latest.distance[best], length[best], 0};
}

/* The best match at `at`, which is entered in the table. */
static inline match find_match(const search *in, uint32_t at, uint32_t open)
{
    const uint64_t word = dimg_load64(content_at(in, at));
    const match best = find_recent(in, at, word);
    uint32_t *place = place_of(in, word);
    const uint32_t from = *place;
    *place = at;
    if (best.length >= SURE || from == (uint32_t)NOWHERE || dimg_load64(bytes_at(in, from)) != word)
        return best;
    const uint32_t length = extend(in, at, from), before = extend_before(in, at, open, from);
    const int gain = (int)(length + before) * COST_ADDED - COST_PLACE;
    return gain > best.gain ? (match){gain, from, length, before} : best;
}

/* Lay out the table and enter the sources. */
static inline void start_search(search *in)
{
    int log = MIN_TABLE_LOG;
    while (log < MAX_TABLE_LOG && (uint32_t)8 << log < in->end)
        log++;
    in->shift = 64 - log;
    memset(in->table, NOWHERE, sizeof *in->table << log);
    const uint32_t step = in->source_bytes <= DENSE_BYTES ? 4 : 8;
    for (uint32_t at = 0; in->source_bytes - at >= WINDOW && at < in->source_bytes; at += step)
        *place_of(in, dimg_load64(in->sources + at)) = at;
}

#endif
