/* SPDX-License-Identifier: Apache-2.0
 *
 * What the functions on runs share: what a good run is, and a writer of merged runs. Runs come from maps that were read from a
 * store, so nothing about them is taken for granted. */
#ifndef DIMG_RUNS_H
#define DIMG_RUNS_H

#include "../../include/dimg.h"

enum { DIMG_FIRST_SLOT = 2 }; /* below it, a slot stands for the whole run: hole, zero */

static inline uint64_t dimg_run_end(const dimg_run *run)
{
    return run->first_block + run->count;
}

/* The slot of a block of the run. */
static inline uint32_t dimg_run_slot(const dimg_run *run, uint64_t block)
{
    return run->slot < DIMG_FIRST_SLOT ? run->slot : run->slot + (uint32_t)(block - run->first_block);
}

/* Not empty, and neither its blocks nor its slots pass the end of their numbers. */
static inline int dimg_is_good_run(const dimg_run *run)
{
    return run->count > 0 && run->first_block <= UINT64_MAX - run->count
           && (run->slot < DIMG_FIRST_SLOT || run->slot - 1 <= UINT32_MAX - run->count);
}

/* Every run good, and in order without overlap. */
int dimg_are_good_runs(const dimg_run *runs, size_t run_count);

typedef struct {
    dimg_run *runs;
    size_t count, capacity;
    int is_full; /* something did not fit */
} dimg_run_writer;

/* Append blocks [first, end), which start with `slot` and come after all that was written. Neighbours that continue each
 * other are merged, filling a run up to a count of 2^32 - 1, so the result does not depend on how blocks were cut. */
void dimg_write_run(dimg_run_writer *to, uint64_t first, uint64_t end, uint32_t slot);

#endif
