/* SPDX-License-Identifier: Apache-2.0
 *
 * Encoding a delta: content as copies of sources and of itself and as small differences from these, in streams that zstd then
 * compresses (the caller does that).
 *
 * What changes regularly (a counter in each row of a page, an address in each entry of a table) becomes regular operations and
 * equal differences: bytes that repeat, which zstd finds. That is why operations are rows and not columns, and why the result is
 * smaller than a zstd frame with the sources as its history, which codes each of its sequences by itself.
 *
 * Source  Differences to a source in place of new bytes: C. Percival, "Naive Differences of Executable Code" (2003), bsdiff.
 *
 * Always  Linear in content and sources, whatever they are: one candidate a position; what an extension runs over is copied, but
 *         for at most MAX_LATER tries at ENOUGH bytes; a stretch without matches is passed over in growing steps. */
#include "streams.h"

enum {
    ENOUGH = 160,    /* a copy of so many bytes is taken as it is found */
    MAX_LATER = 8,   /* for a shorter one at most so many later positions are tried */
    COST_LATER = 5,  /* bits that a match must save in addition for each position that it comes later */
    PATIENCE_LOG = 8 /* after each 2^PATIENCE_LOG bytes without a match the steps grow by one */
};

/* Copies make at least 2 bytes, those at new distances WINDOW, so that no stream becomes longer than the content. */
size_t dimg_delta_work_bytes(size_t content_bytes)
{
    return ((size_t)4 << MAX_TABLE_LOG) + 4 * (content_bytes / WINDOW + 1) + 6 * content_bytes;
}

size_t dimg_delta_bound(size_t content_bytes)
{
    return 2 * content_bytes + 1024;
}

static inline uint8_t *cut(uint8_t **work, size_t bytes)
{
    uint8_t *const start = *work;
    *work += bytes;
    return start;
}

static inline stream cut_stream(uint8_t **work, size_t bytes)
{
    uint8_t *const start = cut(work, bytes);
    return (stream){start, start};
}

static streams cut_streams(uint8_t *work, size_t content_bytes)
{
    streams to = {.places = (uint32_t *)(void *)cut(&work, 4 * (content_bytes / WINDOW + 1))};
    to.operations = cut_stream(&work, content_bytes);
    to.longs = cut_stream(&work, content_bytes);
    to.singles.plain = cut_stream(&work, content_bytes);
    to.singles.differing = cut_stream(&work, content_bytes);
    to.shorts.plain = cut_stream(&work, content_bytes);
    to.shorts.differing = cut_stream(&work, content_bytes);
    return to;
}

/* The match at `*at`, or a better one a little later, where `*at` then is. */
static inline match choose_match(const search *in, uint32_t *at, uint32_t open, uint32_t limit)
{
    match best = find_match(in, *at, open);
    for (int tried = 0; best.gain > 0 && best.length < ENOUGH && tried < MAX_LATER && *at + 1 < limit; tried++) {
        const match later = find_match(in, *at + 1, open);
        if (later.gain <= best.gain + COST_LATER)
            break;
        best = later;
        ++*at;
    }
    return best;
}

static void make_streams(search *in, streams *to)
{
    const uint32_t limit = in->end < WINDOW ? 0 : in->end - WINDOW + 1;
    uint32_t open = in->source_bytes; /* all before it is made */
    uint32_t at = open < WINDOW ? WINDOW : open; /* so that the first distances reach back to something */
    while (at < limit) {
        const match found = choose_match(in, &at, open, limit);
        if (found.gain <= 0) {
            at += 1 + ((at - open) >> PATIENCE_LOG);
            continue;
        }
        const uint32_t before = found.before != 0 ? found.before : extend_before(in, at, open, found.from);
        put_operation(to, in, open, at - before, found.from - before, found.length + before);
        at += found.length;
        open = at;
    }
    put_long(to, in, open, in->end - open);
}

int dimg_encode_delta(const uint8_t *sources, size_t source_bytes, const uint8_t *content, size_t content_bytes, void *work,
                      size_t work_bytes, uint8_t *body, size_t body_bytes, size_t part_bytes[DIMG_DELTA_PARTS])
{
    if (source_bytes > DIMG_DELTA_MAX_BYTES || content_bytes > DIMG_DELTA_MAX_BYTES - source_bytes
        || (uintptr_t)work % sizeof(uint32_t) != 0)
        return DIMG_BAD_ARGUMENT;
    if (work_bytes < dimg_delta_work_bytes(content_bytes) || body_bytes < dimg_delta_bound(content_bytes))
        return DIMG_BUFFER_TOO_SMALL;
    uint8_t *room = work;
    search in = {
        .sources = sources,
        .content = content,
        .source_bytes = (uint32_t)source_bytes,
        .end = (uint32_t)(source_bytes + content_bytes),
        .table = (uint32_t *)(void *)cut(&room, (size_t)4 << MAX_TABLE_LOG),
        .latest = FIRST_RECENTS,
    };
    streams to = cut_streams(room, content_bytes);
    start_search(&in);
    make_streams(&in, &to);
    put_body(&to, place_bytes_of(in.end), body, part_bytes);
    return DIMG_OK;
}
