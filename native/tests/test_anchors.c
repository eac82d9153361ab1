/* SPDX-License-Identifier: Apache-2.0
 *
 * Anchors: every path selects the same positions, nothing is read past the end, and tables say what was entered. */
#include "../src/anchors/anchors.h"
#include "check.h"

enum { MOST = 5000, BUCKETS = 16 };

static void test_paths_agree(uint64_t *seed)
{
    for (size_t length = 0; length < 400; length += 7) {
        uint8_t *data = make_buffer(length);
        uint32_t found[MOST], expected[MOST];
        fill_random(data, length, seed);
        const size_t positions = length < 40 ? 0 : length - 40;
        size_t count = 0, next = 0;
        for (size_t p = 0; p < positions; p++)
            if (p >= next && dimg_is_anchor(data + p, 30)) {
                expected[count++] = (uint32_t)p;
                next = p + 16;
            }
        CHECK(dimg_select_anchors_portable(data, positions, 30, found, MOST) == count);
        CHECK(memcmp(found, expected, 4 * count) == 0);
#if defined(__x86_64__)
        if (__builtin_cpu_supports("avx2")) {
            CHECK(dimg_select_anchors_avx2(data, positions, 30, found, MOST) == count);
            CHECK(memcmp(found, expected, 4 * count) == 0);
        }
#endif
        free(data);
    }
}

static void test_table(uint64_t *seed)
{
    uint64_t table[8 * BUCKETS] = {0}, names[8 * BUCKETS];
    uint32_t slots[8 * BUCKETS], found[8 * BUCKETS];
    fill_random((uint8_t *)names, sizeof names, seed);
    for (uint32_t i = 0; i < 8 * BUCKETS; i++)
        slots[i] = i % 10 == 0 ? 0 : i + 2;
    CHECK(dimg_insert_anchors(table, BUCKETS, names, slots, 40) == DIMG_OK);
    CHECK(dimg_find_anchors(table, BUCKETS, names, 40, found) == DIMG_OK);
    for (size_t i = 0; i < 40; i++)
        CHECK(found[i] == slots[i]);
    CHECK(dimg_insert_anchors(table, BUCKETS, names, slots, 8 * BUCKETS) == DIMG_OK); /* some buckets overflow */
    CHECK(dimg_find_anchors(table, BUCKETS, names, 8 * BUCKETS, found) == DIMG_OK);
    for (size_t i = 0; i < 8 * BUCKETS; i++)
        CHECK(found[i] == slots[i] || found[i] == 0);
    CHECK(dimg_find_anchors(table, 0, names, 1, found) == DIMG_BAD_ARGUMENT);
    CHECK(dimg_insert_anchors(table, 0, names, slots, 1) == DIMG_BAD_ARGUMENT);
}

static void test_limits(void)
{
    uint8_t *data = make_buffer(4096);
    uint64_t names[256];
    uint32_t positions[256];
    size_t count = 99;
    memset(data, 0, 4096);
    CHECK(dimg_collect_anchors(data, 4096, 31, names, positions, 256, &count) == DIMG_OK && count == 0);
    CHECK(dimg_collect_anchors(data, 4096, 32, names, positions, 256, &count) == DIMG_BAD_ARGUMENT);
    CHECK(dimg_collect_anchors(data, 4096, 25, names, positions, 255, &count) == DIMG_BAD_ARGUMENT);
    for (size_t i = 0; i < 4096; i++) /* an anchor every 8 bytes, all of one name */
        data[i] = (uint8_t)(i % 8 == 0 ? 1 : 0);
    CHECK(dimg_collect_anchors(data, 4096, 31, names, positions, 256, &count) == DIMG_OK && count <= 256);
    free(data);
}

int main(void)
{
    uint64_t seed = 5;
    test_paths_agree(&seed);
    test_table(&seed);
    test_limits();
    puts("anchors");
    return 0;
}
