/* SPDX-License-Identifier: Apache-2.0
 *
 * Scans: statuses and their runs; the plain tests of bytes at every length and alignment. */
#include "check.h"

static const uint8_t KEY[32] = {7};

static void test_statuses(void)
{
    /* Blocks: as in the base, changed, zero, zero where the base has data, data where the base has a hole or zero. */
    enum { BLOCKS = 7, BYTES = 1024 };
    uint64_t seed = 2;
    uint8_t *data = make_buffer(BLOCKS * BYTES), *table = make_buffer(16 * (2 + BLOCKS)), found[16 * BLOCKS];
    const uint32_t slots[BLOCKS] = {2, 3, 4, 1, 6, 0, 1};
    const uint32_t expected[BLOCKS] = {DIMG_SAME, DIMG_SAME, DIMG_CHANGED, DIMG_ZERO, DIMG_ZERO, DIMG_CHANGED, DIMG_CHANGED};
    dimg_status_run runs[BLOCKS];
    size_t count = 99;
    fill_random(data, BLOCKS * BYTES, &seed);
    memset(table, 0, 32);
    CHECK(dimg_digest_blocks(0, KEY, data, BLOCKS, BYTES, table + 32) == DIMG_OK);
    data[2 * BYTES + 1023] ^= 1;
    memset(data + 3 * BYTES, 0, 2 * BYTES);
    CHECK(dimg_scan_blocks(0, KEY, data, BLOCKS, BYTES, slots, table, 9, found, runs, 4, &count) == DIMG_OK);
    CHECK(count == 4);
    uint32_t next = 0;
    for (size_t i = 0; i < count; i++) {
        CHECK(runs[i].first == next && runs[i].count > 0);
        for (uint32_t j = 0; j < runs[i].count; j++)
            CHECK(runs[i].status == expected[next++]);
    }
    CHECK(next == BLOCKS);
    CHECK(dimg_scan_blocks(0, KEY, data, BLOCKS, BYTES, slots, table, 9, found, runs, 3, &count) == DIMG_BUFFER_TOO_SMALL);
    CHECK(dimg_scan_blocks(0, KEY, data, BLOCKS, BYTES, slots, table, 6, found, runs, 7, &count) == DIMG_BAD_SLOT);
    CHECK(dimg_scan_blocks(0, KEY, data, 0, BYTES, slots, table, 0, found, runs, 0, &count) == DIMG_OK && count == 0);
    free(data);
    free(table);
}

static void test_bytes(void)
{
    for (size_t length = 0; length < 200; length++) {
        uint8_t *a = make_buffer(length), *b = make_buffer(length);
        memset(a, 0, length);
        memset(b, 0, length);
        CHECK(dimg_is_zero(a, length) && dimg_is_equal(a, b, length));
        for (size_t i = 0; i < length; i++) {
            a[i] = 1;
            CHECK(!dimg_is_zero(a, length) && !dimg_is_equal(a, b, length));
            a[i] = 0;
        }
        free(a);
        free(b);
    }
}

static void test_gather(void)
{
    const uint8_t data[12] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
    const uint32_t indexes[5] = {1, 2, 0, 3, 3}, wrong[1] = {4};
    const uint8_t expected[15] = {3, 4, 5, 6, 7, 8, 0, 1, 2, 9, 10, 11, 9, 10, 11};
    uint8_t out[15];
    CHECK(dimg_gather_blocks(data, 4, 3, indexes, 5, out, 15) == DIMG_OK && memcmp(out, expected, 15) == 0);
    CHECK(dimg_gather_blocks(data, 4, 3, indexes, 5, out, 14) == DIMG_BUFFER_TOO_SMALL);
    CHECK(dimg_gather_blocks(data, 4, 3, wrong, 1, out, 15) == DIMG_BAD_ARGUMENT);
    CHECK(dimg_gather_blocks(data, 4, 0, indexes, 1, out, 15) == DIMG_BAD_ARGUMENT);
    CHECK(dimg_gather_blocks(data, 4, 3, indexes, SIZE_MAX / 2, out, 15) == DIMG_BAD_ARGUMENT);
}

int main(void)
{
    test_statuses();
    test_bytes();
    test_gather();
    printf("scan\n");
    return 0;
}
