/* SPDX-License-Identifier: Apache-2.0
 *
 * From runs to one slot a block, for a range of blocks. */
#include <string.h>

#include "runs.h"

/* The first run that ends after `block`, as far as the list is in order; any place in the list when it is not. */
static size_t find_run(const dimg_run *runs, size_t run_count, uint64_t block)
{
    size_t low = 0, high = run_count;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (dimg_run_end(&runs[middle]) <= block)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static void fill_slots(uint32_t *slots, size_t count, uint32_t slot)
{
    const uint32_t step = slot < DIMG_FIRST_SLOT ? 0 : 1;
    for (size_t i = 0; i < count; i++, slot += step)
        slots[i] = slot;
}

int dimg_expand_runs(const dimg_run *runs, size_t run_count, uint64_t first_block, size_t block_count, uint32_t *out_slots)
{
    if (first_block > UINT64_MAX - block_count || block_count > SIZE_MAX / sizeof *out_slots)
        return DIMG_BAD_ARGUMENT;
    const uint64_t end_block = first_block + block_count;
    const size_t start = find_run(runs, run_count, first_block);
    size_t stop = start;
    while (stop < run_count && runs[stop].first_block < end_block)
        stop++;
    if (!dimg_are_good_runs(runs + start, stop - start))
        return DIMG_BAD_RUNS;
    uint64_t done = first_block;
    for (size_t i = start; i < stop; i++) {
        const uint64_t first = runs[i].first_block > done ? runs[i].first_block : done;
        const uint64_t end = dimg_run_end(&runs[i]) < end_block ? dimg_run_end(&runs[i]) : end_block;
        fill_slots(out_slots + (done - first_block), (size_t)(first - done), 0);
        fill_slots(out_slots + (first - first_block), (size_t)(end - first), dimg_run_slot(&runs[i], first));
        done = end;
    }
    fill_slots(out_slots + (done - first_block), (size_t)(end_block - done), 0);
    return DIMG_OK;
}
