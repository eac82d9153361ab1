/* SPDX-License-Identifier: Apache-2.0
 *
 * What a map says that another does not: how a full map becomes the map of an incremental. */
#include "runs.h"

/* Whether both runs give `block`, and so every block that both have, the same slot. */
static int is_same_slot(const dimg_run *a, const dimg_run *b, uint64_t block)
{
    if ((a->slot < DIMG_FIRST_SLOT) != (b->slot < DIMG_FIRST_SLOT))
        return 0;
    return dimg_run_slot(a, block) == dimg_run_slot(b, block);
}

/* Write what of `run` differs from the base, whose runs before *next end before it. */
static void write_difference(dimg_run_writer *to, const dimg_run *run, const dimg_run *base, size_t base_count, size_t *next)
{
    const uint64_t end = dimg_run_end(run);
    uint64_t kept = run->first_block; /* start of what differs and is not written yet */
    while (*next < base_count && base[*next].first_block < end) {
        const dimg_run *under = &base[*next];
        const uint64_t from = under->first_block > run->first_block ? under->first_block : run->first_block;
        const uint64_t until = dimg_run_end(under) < end ? dimg_run_end(under) : end;
        if (from < until && is_same_slot(run, under, from)) {
            if (kept < from)
                dimg_write_run(to, kept, from, dimg_run_slot(run, kept));
            kept = until;
        }
        if (dimg_run_end(under) > end)
            break; /* it may reach into the next run too */
        ++*next;
    }
    if (kept < end)
        dimg_write_run(to, kept, end, dimg_run_slot(run, kept));
}

int dimg_subtract_runs(const dimg_run *runs, size_t run_count, const dimg_run *base, size_t base_count,
                       dimg_run *out, size_t capacity, size_t *out_count)
{
    if (!dimg_are_good_runs(runs, run_count) || !dimg_are_good_runs(base, base_count))
        return DIMG_BAD_RUNS;
    dimg_run_writer to = {.runs = out, .count = 0, .capacity = capacity, .is_full = 0};
    size_t next = 0;
    for (size_t i = 0; i < run_count; i++)
        write_difference(&to, &runs[i], base, base_count, &next);
    if (to.is_full)
        return DIMG_BUFFER_TOO_SMALL;
    *out_count = to.count;
    return DIMG_OK;
}
