/* SPDX-License-Identifier: Apache-2.0
 *
 * The search for old blocks in a new file, at any offset.
 *
 * Nearly all windows of new content are in no old block, so what counts is how fast they are passed over. A window's weak sum
 * is looked up in a bit array first (the filter), small enough for a near cache, which says no to all but one in some hundred;
 * only then in the sorted list of weak sums, and only where it stands there is the strong sum computed.
 *
 * Equal content is looked up by weak and strong sum together, by bisection, so that thousands of equal weak sums cost no more
 * than ten steps; repeated blocks are one entry. What remains to an adversary are windows that share a weak sum with an old
 * block and nothing else, each of which costs a strong sum: these are paid from an allowance.
 *
 * Always  A match counts only when the strong sums agree. Entries name blocks that exist, or the call fails.
 * Source  A. Tridgell, "Efficient Algorithms for Sorting and Synchronization" (1999), chapter 3: the weak sum first, the strong one
 *         where it agrees. The filter is that of B. Bloom, "Space/Time Trade-offs in Hash Coding" (1970), with two bits a sum. */
#include <string.h>

#include "../../include/dimg.h"
#include "weak.h"

enum {
    MAX_STRONG_BYTES = 32,
    MD5_BYTES = 16,
    MD5_AHEAD = 8,           /* windows: MD5 of one block takes as long as of eight, and one match is followed by others */
    BISECT_FROM = 8,         /* entries; below, stepping through them is faster */
    ALLOWANCE_PER_BYTE = 16, /* bytes of strong sums without a match for each byte searched: a large file's share of chance hits */
    FIRST_ALLOWANCE = 64     /* blocks */
};

/* One search: the index, the data, and what was found so far. */
typedef struct {
    const dimg_block_index *index;
    dimg_roller roller;
    const uint8_t *data;
    size_t data_bytes;
    uint64_t first_position;
    uint64_t spent; /* bytes of strong sums without a match */
    uint64_t searched;
    dimg_block_match *out;
    size_t capacity, count;
    size_t ahead_from, ahead_count; /* MD5s of windows that follow each other, computed at once */
    uint8_t ahead[MD5_AHEAD * MD5_BYTES];
} search;

enum { FOUND = -1, NOT_FOUND = -2 }; /* beside dimg_status, which has no negative values */

static int is_in_filter(const dimg_block_index *index, uint64_t weak)
{
    return dimg_filter_has(index->filter, dimg_filter_hash(index->weak_kind, weak), index->filter_bits - 5);
}

/* The MD5 of the window at `position`, and those of the windows behind it, to have them if this one matches. */
static int compute_md5(search *s, size_t position, uint8_t *out)
{
    const size_t n = s->index->block_bytes;
    size_t window = (position - s->ahead_from) / n;
    if (position < s->ahead_from || (position - s->ahead_from) % n != 0 || window >= s->ahead_count) {
        const size_t room = (s->data_bytes - position) / n;
        s->ahead_from = position;
        s->ahead_count = room < MD5_AHEAD ? room : MD5_AHEAD;
        const int status = dimg_md5_blocks(s->data + position, s->ahead_count, n, s->ahead);
        if (status != DIMG_OK)
            return status;
        window = 0;
    }
    memcpy(out, s->ahead + MD5_BYTES * window, MD5_BYTES);
    return DIMG_OK;
}

static int compute_strong(search *s, size_t position, uint8_t *out)
{
    const dimg_block_index *index = s->index;
    switch (index->strong_kind) {
    case DIMG_STRONG_BLAKE3:
        return dimg_digest_blocks(index->path, index->key, s->data + position, 1, index->block_bytes, out);
    case DIMG_STRONG_BLAKE2B:
        return dimg_blake2b_blocks(s->data + position, 1, index->block_bytes, out);
    default:
        return compute_md5(s, position, out);
    }
}

static const uint8_t *strong_of(const dimg_block_index *index, size_t block)
{
    return index->strongs + index->strong_bytes * block;
}

/* The entries [*first, *end) whose mixed weak sum is `mixed`. */
static int find_entries(const dimg_block_index *index, uint64_t mixed, size_t *first, size_t *end)
{
    const size_t bucket = (size_t)(mixed >> (64 - index->directory_bits));
    size_t low = index->directory[bucket], high = index->directory[bucket + 1];
    if (low > high || high > index->entry_count)
        return DIMG_BAD_ARGUMENT;
    const size_t bucket_end = high;
    while (high - low > BISECT_FROM) {
        const size_t middle = low + (high - low) / 2;
        if (index->mixed[middle] < mixed)
            low = middle + 1;
        else
            high = middle;
    }
    while (low < bucket_end && index->mixed[low] < mixed)
        low++;
    *first = low;
    /* Equal weak sums are few, unless they were made on purpose; then the end is bisected for, too. */
    size_t step = 1;
    while (low + step < bucket_end && index->mixed[low + step] == mixed)
        step *= 2;
    high = low + step < bucket_end ? low + step : bucket_end;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (index->mixed[middle] <= mixed)
            low = middle + 1;
        else
            high = middle;
    }
    *end = low;
    return DIMG_OK;
}

/* The entry of [first, end), which is sorted by strong sum, that has this one. */
static int find_strong(const dimg_block_index *index, size_t first, size_t end, const uint8_t *strong, uint32_t *out_block)
{
    while (first < end) {
        const size_t middle = first + (end - first) / 2;
        const uint32_t block = index->blocks[middle];
        if (block >= index->block_count)
            return DIMG_BAD_ARGUMENT;
        const int order = memcmp(strong_of(index, block), strong, index->strong_bytes);
        if (order == 0) {
            *out_block = block;
            return FOUND;
        }
        if (order < 0)
            first = middle + 1;
        else
            end = middle;
    }
    return NOT_FOUND;
}

static int is_block(const dimg_block_index *index, uint64_t block, uint64_t weak, const uint8_t *strong)
{
    return block < index->block_count && index->weaks[block] == weak
           && memcmp(strong_of(index, (size_t)block), strong, index->strong_bytes) == 0;
}

/* The old block that continues the last match, were it to continue at `position`; else one that does not exist. */
static uint64_t next_block(const search *s, uint64_t position)
{
    if (s->count == 0)
        return UINT64_MAX;
    const dimg_block_match *last = &s->out[s->count - 1];
    const int continues = last->position + (uint64_t)last->count * s->index->block_bytes == position;
    return continues ? (uint64_t)last->block + last->count : UINT64_MAX;
}

/* Is the window at `position`, with this weak sum, an old block? FOUND, NOT_FOUND or a status. */
static int look_up(search *s, size_t position, uint64_t weak, uint32_t *out_block)
{
    const dimg_block_index *index = s->index;
    uint8_t strong[MAX_STRONG_BYTES];
    size_t first, end;
    int status = find_entries(index, weak * DIMG_MIX, &first, &end);
    if (status != DIMG_OK)
        return status;
    if (first == end)
        return NOT_FOUND;
    const uint64_t allowance = (s->searched + position) * ALLOWANCE_PER_BYTE + (uint64_t)FIRST_ALLOWANCE * index->block_bytes;
    if (s->spent > allowance)
        return NOT_FOUND;
    status = compute_strong(s, position, strong);
    if (status != DIMG_OK)
        return status;
    if (index->prefers_next) {
        const uint64_t next = next_block(s, position);
        const uint64_t place = s->first_position + position;
        if (is_block(index, next, weak, strong)) {
            *out_block = (uint32_t)next;
            return FOUND;
        }
        if (place % index->block_bytes == 0 && is_block(index, place / index->block_bytes, weak, strong)) {
            *out_block = (uint32_t)(place / index->block_bytes);
            return FOUND;
        }
    }
    status = find_strong(index, first, end, strong, out_block);
    if (status == NOT_FOUND)
        s->spent += index->block_bytes;
    return status;
}

static int add_match(search *s, size_t position, uint32_t block)
{
    if (next_block(s, position) == block && s->out[s->count - 1].count < UINT32_MAX) {
        s->out[s->count - 1].count++;
        return DIMG_OK;
    }
    if (s->count == s->capacity)
        return DIMG_BUFFER_TOO_SMALL;
    s->out[s->count++] = (dimg_block_match){.position = position, .block = block, .count = 1};
    return DIMG_OK;
}

/* Search windows that begin in [*position, end); stops early only for a status, with *position where to continue. */
static int search_stretch(search *s, size_t *position, size_t end)
{
    const size_t n = s->index->block_bytes;
    while (*position < end) {
        /* A fresh window: at the beginning, and behind a match. */
        dimg_sum sum = dimg_sum_window(s->roller.kind, s->data + *position, n);
        size_t at = *position;
        if (!is_in_filter(s->index, dimg_weak_of(s->roller.kind, sum)))
            at = dimg_skip_misses(&s->roller, at, end, &sum);
        uint32_t block = 0;
        int status = NOT_FOUND;
        while (at < end) {
            status = look_up(s, at, dimg_weak_of(s->roller.kind, sum), &block);
            if (status != NOT_FOUND)
                break;
            at = dimg_skip_misses(&s->roller, at, end, &sum);
        }
        *position = at;
        if (at >= end)
            return DIMG_OK;
        if (status == FOUND)
            status = add_match(s, at, block);
        if (status != DIMG_OK)
            return status;
        *position = at + n;
    }
    return DIMG_OK;
}

static int is_sound(const dimg_block_index *index)
{
    static const size_t strong_bytes[] = {16, 32, 16};
    if (index->weak_kind < DIMG_WEAK_RABIN_KARP || index->weak_kind > DIMG_WEAK_WIDE)
        return 0;
    if (index->strong_kind < DIMG_STRONG_BLAKE3 || index->strong_kind > DIMG_STRONG_MD5)
        return 0;
    if (index->strong_bytes == 0 || index->strong_bytes > strong_bytes[index->strong_kind])
        return 0;
    if (index->block_bytes == 0 || index->directory_bits < 1 || index->directory_bits > 32)
        return 0;
    return index->filter_bits >= 8 && index->filter_bits <= 27
           && index->directory[(size_t)1 << index->directory_bits] == index->entry_count;
}

int dimg_match_blocks(const dimg_block_index *index, const uint8_t *data, size_t data_bytes, uint64_t first_position,
                      const uint64_t *stretches, size_t stretch_count, dimg_block_match *out, size_t capacity,
                      size_t *out_count, size_t *out_stretch, uint64_t *out_position)
{
    search s = {.index = index, .data = data, .data_bytes = data_bytes, .first_position = first_position, .out = out,
                .capacity = capacity};
    *out_count = 0;
    if (!is_sound(index))
        return DIMG_BAD_ARGUMENT;
    for (size_t i = 0; i < stretch_count; i++)
        if (stretches[2 * i] > stretches[2 * i + 1] || stretches[2 * i + 1] > data_bytes)
            return DIMG_BAD_ARGUMENT;
    s.roller = (dimg_roller){.kind = index->weak_kind, .window_bytes = index->block_bytes, .data = data, .filter = index->filter,
                             .weight = dimg_power_of(DIMG_MULTIPLIER, index->block_bytes), .word_bits = index->filter_bits - 5,
                             .second_weight = dimg_power_of(DIMG_SECOND_MULTIPLIER, index->block_bytes)};
    for (size_t i = 0; i < stretch_count && index->entry_count > 0; i++) {
        size_t position = (size_t)stretches[2 * i];
        if (stretches[2 * i + 1] - position < index->block_bytes)
            continue;
        /* Allowances are for what was searched: counted so that `searched + position` is that, anywhere in this stretch. */
        s.searched -= position;
        const size_t end = (size_t)stretches[2 * i + 1] - index->block_bytes + 1;
        const int status = search_stretch(&s, &position, end);
        *out_count = s.count;
        *out_stretch = i;
        *out_position = position;
        if (status != DIMG_OK)
            return status;
        s.searched += end;
    }
    *out_count = s.count;
    return DIMG_OK;
}
