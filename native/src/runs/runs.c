/* SPDX-License-Identifier: Apache-2.0
 *
 * Checking and writing lists of runs. */
#include "runs.h"

int dimg_are_good_runs(const dimg_run *runs, size_t run_count)
{
    for (size_t i = 0; i < run_count; i++)
        if (!dimg_is_good_run(&runs[i]) || (i > 0 && runs[i].first_block < dimg_run_end(&runs[i - 1])))
            return 0;
    return 1;
}

/* Whether a block and slot continue `run`. */
static int is_continued(const dimg_run *run, uint64_t block, uint32_t slot)
{
    if (dimg_run_end(run) != block)
        return 0;
    if (run->slot < DIMG_FIRST_SLOT || slot < DIMG_FIRST_SLOT)
        return run->slot == slot;
    return (uint64_t)run->slot + run->count == slot;
}

void dimg_write_run(dimg_run_writer *to, uint64_t first, uint64_t end, uint32_t slot)
{
    uint64_t count = end - first; /* of one run's blocks, so below 2^32 */
    if (to->count > 0 && is_continued(&to->runs[to->count - 1], first, slot)) {
        dimg_run *last = &to->runs[to->count - 1];
        const uint64_t room = UINT32_MAX - last->count;
        const uint64_t moved = count < room ? count : room;
        last->count += (uint32_t)moved;
        first += moved;
        count -= moved;
        if (slot >= DIMG_FIRST_SLOT)
            slot += (uint32_t)moved;
    }
    if (count == 0)
        return;
    if (to->count == to->capacity) {
        to->is_full = 1;
        return;
    }
    to->runs[to->count++] = (dimg_run){.first_block = first, .count = (uint32_t)count, .slot = slot};
}
