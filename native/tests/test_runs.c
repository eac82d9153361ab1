/* SPDX-License-Identifier: Apache-2.0
 *
 * Runs against one slot a block; hostile lists; numbers at the ends of their ranges. */
#include "check.h"

enum { SPACE = 64, MOST = 40, ABSENT = -1 };

typedef struct {
    dimg_run runs[MOST];
    size_t count;
    int64_t slots[SPACE]; /* the same, a slot or ABSENT for each block */
} map;

static void make_map(map *m, uint64_t *seed)
{
    m->count = 0;
    for (size_t i = 0; i < SPACE; i++)
        m->slots[i] = ABSENT;
    for (uint64_t at = next_random(seed) % 8; at < SPACE; at += next_random(seed) % 4 == 0 ? next_random(seed) % 6 : 0) {
        const uint64_t left = SPACE - at, wanted = 1 + next_random(seed) % 6;
        const dimg_run run = {at, (uint32_t)(wanted < left ? wanted : left), (uint32_t)(next_random(seed) % 10)};
        if (m->count == MOST)
            break;
        m->runs[m->count++] = run;
        for (uint32_t i = 0; i < run.count; i++)
            m->slots[at + i] = run.slot < 2 ? run.slot : run.slot + i;
        at += run.count;
    }
}

/* The runs give exactly these slots, and no two of them could be one. */
static void check_runs(const dimg_run *runs, size_t count, const int64_t *expected)
{
    int64_t found[SPACE];
    for (size_t i = 0; i < SPACE; i++)
        found[i] = ABSENT;
    for (size_t r = 0; r < count; r++) {
        for (uint32_t i = 0; i < runs[r].count; i++)
            found[runs[r].first_block + i] = runs[r].slot < 2 ? runs[r].slot : runs[r].slot + i;
        if (r > 0 && runs[r - 1].first_block + runs[r - 1].count == runs[r].first_block) {
            const dimg_run *last = &runs[r - 1];
            CHECK(runs[r].slot < 2 || last->slot < 2 ? runs[r].slot != last->slot : runs[r].slot != last->slot + last->count);
        }
    }
    CHECK(memcmp(found, expected, sizeof found) == 0);
}

static void test_against_slots(uint64_t *seed)
{
    map base, over;
    int64_t laid[SPACE], left[SPACE];
    make_map(&base, seed);
    make_map(&over, seed);
    for (size_t i = 0; i < SPACE; i++) {
        laid[i] = over.slots[i] == ABSENT ? base.slots[i] : over.slots[i];
        left[i] = over.slots[i] == base.slots[i] ? ABSENT : over.slots[i];
    }
    const size_t laid_capacity = 2 * over.count + base.count, left_capacity = over.count + base.count;
    dimg_run *out = make_buffer(laid_capacity * sizeof *out);
    size_t count;
    CHECK(dimg_overlay_runs(base.runs, base.count, over.runs, over.count, out, laid_capacity, &count) == DIMG_OK);
    check_runs(out, count, laid);
    if (count > 0)
        CHECK(dimg_overlay_runs(base.runs, base.count, over.runs, over.count, out, count - 1, &count) == DIMG_BUFFER_TOO_SMALL);
    CHECK(dimg_subtract_runs(over.runs, over.count, base.runs, base.count, out, left_capacity, &count) == DIMG_OK);
    check_runs(out, count, left);
    free(out);
    for (size_t first = 0; first < SPACE; first += 7) {
        const size_t length = next_random(seed) % (SPACE - first + 1);
        uint32_t *slots = make_buffer(length * sizeof *slots);
        CHECK(dimg_expand_runs(base.runs, base.count, first, length, slots) == DIMG_OK);
        for (size_t i = 0; i < length; i++)
            CHECK(slots[i] == (base.slots[first + i] == ABSENT ? 0 : base.slots[first + i]));
        free(slots);
    }
}

static void check_refused(const dimg_run *runs, size_t count)
{
    dimg_run out[16];
    size_t out_count;
    CHECK(dimg_overlay_runs(runs, count, NULL, 0, out, 16, &out_count) == DIMG_BAD_RUNS);
    CHECK(dimg_overlay_runs(NULL, 0, runs, count, out, 16, &out_count) == DIMG_BAD_RUNS);
    CHECK(dimg_subtract_runs(runs, count, NULL, 0, out, 16, &out_count) == DIMG_BAD_RUNS);
    CHECK(dimg_subtract_runs(NULL, 0, runs, count, out, 16, &out_count) == DIMG_BAD_RUNS);
}

static void test_hostile(void)
{
    uint32_t slots[8];
    check_refused((dimg_run[]){{0, 0, 0}}, 1);                          /* empty */
    check_refused((dimg_run[]){{4, 2, 0}, {5, 1, 1}}, 2);               /* overlap */
    check_refused((dimg_run[]){{4, 2, 0}, {0, 1, 1}}, 2);               /* order */
    check_refused((dimg_run[]){{UINT64_MAX - 1, 2, 0}}, 1);             /* past the last block */
    check_refused((dimg_run[]){{0, 2, UINT32_MAX}}, 1);                 /* past the last slot */
    check_refused((dimg_run[]){{0, UINT32_MAX, 3}}, 1);
    CHECK(dimg_expand_runs((dimg_run[]){{0, 0, 0}, {1, 1, 5}, {1, 1, 5}}, 3, 0, 8, slots) == DIMG_BAD_RUNS);
    CHECK(dimg_expand_runs((dimg_run[]){{0, 2, UINT32_MAX}}, 1, 0, 8, slots) == DIMG_BAD_RUNS);
    CHECK(dimg_expand_runs(NULL, 0, UINT64_MAX - 1, 8, slots) == DIMG_BAD_ARGUMENT);
    /* Random lists, mostly bad: whatever comes back, no sanitizer may object. */
    uint64_t seed = 3;
    for (int round = 0; round < 20000; round++) {
        dimg_run hostile[6], other[3], out[16];
        size_t count;
        fill_random((uint8_t *)hostile, sizeof hostile, &seed);
        fill_random((uint8_t *)other, sizeof other, &seed);
        for (size_t i = 0; i < 6; i++) {
            hostile[i].first_block = (next_random(&seed) % 3 == 0 ? UINT64_MAX - 20 : 0) + next_random(&seed) % 12 + i * (uint64_t)(round % 5);
            hostile[i].count %= next_random(&seed) % 7 == 0 ? UINT32_MAX : 5;
            other[i / 2].first_block %= 30;
            other[i / 2].count %= 9;
        }
        dimg_overlay_runs(hostile, 6, other, 3, out, 12, &count);
        dimg_subtract_runs(other, 3, hostile, 6, out, 9, &count);
        dimg_expand_runs(hostile, 6, next_random(&seed) % 3 == 0 ? UINT64_MAX - 9 : next_random(&seed) % 20, 8, slots);
    }
}

/* Runs as long as they can be, and merging that would make them longer. */
static void test_long(void)
{
    const dimg_run base[] = {{0, UINT32_MAX, 0}, {UINT32_MAX, UINT32_MAX, 0}};
    const dimg_run over[] = {{10, 1, 7}};
    dimg_run out[4];
    size_t count;
    CHECK(dimg_overlay_runs(base, 2, over, 1, out, 4, &count) == DIMG_OK && count == 4);
    CHECK(out[2].first_block == 11 && out[2].count == UINT32_MAX && out[3].count == UINT32_MAX - 11);
    const dimg_run data[] = {{0, UINT32_MAX - 1, 2}}; /* slots up to the very last */
    CHECK(dimg_overlay_runs(data, 1, over, 1, out, 4, &count) == DIMG_OK && count == 3);
    CHECK(out[2].slot == 13 && out[2].count == UINT32_MAX - 12);
    uint32_t slots[2];
    CHECK(dimg_expand_runs(data, 1, UINT32_MAX - 2, 2, slots) == DIMG_OK && slots[0] == UINT32_MAX && slots[1] == 0);
}

int main(void)
{
    uint64_t seed = 4;
    for (int round = 0; round < 20000; round++)
        test_against_slots(&seed);
    test_hostile();
    test_long();
    printf("runs\n");
    return 0;
}
