/* SPDX-License-Identifier: Apache-2.0
 *
 * One map laid on another: how a chain of snapshots becomes one map. */
#include "runs.h"

/* Write the blocks [first, end) of the base that lie in runs from *next on, and leave *next at the last one that matters. */
static void write_base(dimg_run_writer *to, const dimg_run *base, size_t base_count, size_t *next, uint64_t first, uint64_t end)
{
    while (*next < base_count && base[*next].first_block < end) {
        const dimg_run *run = &base[*next];
        const uint64_t from = run->first_block > first ? run->first_block : first;
        const uint64_t until = dimg_run_end(run) < end ? dimg_run_end(run) : end;
        if (from < until)
            dimg_write_run(to, from, until, dimg_run_slot(run, from));
        if (dimg_run_end(run) > end)
            return; /* more of this one may show after the run that covers it */
        ++*next;
    }
}

int dimg_overlay_runs(const dimg_run *base, size_t base_count, const dimg_run *over, size_t over_count,
                      dimg_run *out, size_t capacity, size_t *out_count)
{
    if (!dimg_are_good_runs(base, base_count) || !dimg_are_good_runs(over, over_count))
        return DIMG_BAD_RUNS;
    dimg_run_writer to = {.runs = out, .count = 0, .capacity = capacity, .is_full = 0};
    size_t next = 0;
    uint64_t done = 0;
    for (size_t i = 0; i < over_count; i++) {
        write_base(&to, base, base_count, &next, done, over[i].first_block);
        done = dimg_run_end(&over[i]);
        dimg_write_run(&to, over[i].first_block, done, over[i].slot);
    }
    write_base(&to, base, base_count, &next, done, UINT64_MAX);
    if (to.is_full)
        return DIMG_BUFFER_TOO_SMALL;
    *out_count = to.count;
    return DIMG_OK;
}
