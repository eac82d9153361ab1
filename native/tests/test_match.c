/* SPDX-License-Identifier: Apache-2.0
 *
 * The match table: against a search through all digests, at full load, full, and with a table that lies. */
#include "check.h"

enum { CAPACITY = 64, MOST = 66, KINDS = 90 };

static void make_digest(uint8_t *digest, uint32_t kind)
{
    uint64_t seed = kind;
    memset(digest, 0, 16);
    if (kind > 0)
        fill_random(digest, 16, &seed);
    if (kind % 5 == 1) /* some have one home and differ only in their second half */
        memset(digest, 0x11, 8);
}

static uint32_t find_slot(const uint8_t *digests, size_t count, const uint8_t *digest)
{
    for (size_t slot = 2; slot < count; slot++)
        if (memcmp(digests + 16 * slot, digest, 16) == 0)
            return (uint32_t)slot;
    return 0;
}

static void test_against_search(uint64_t *seed)
{
    uint32_t table[CAPACITY] = {0}, slots[MOST];
    uint8_t *digests = make_buffer(16 * MOST), wanted[16 * MOST];
    size_t count = 12, done;
    memset(digests, 0, 32);
    for (uint32_t slot = 2; slot < count; slot++)
        make_digest(digests + 16 * slot, (uint32_t)(next_random(seed) % 8)); /* some zero, some twice */
    CHECK(dimg_insert_slots(table, CAPACITY, digests, count, 0, count) == DIMG_OK);
    for (size_t i = 0; i < MOST; i++)
        make_digest(wanted + 16 * i, (uint32_t)(next_random(seed) % 50));
    CHECK(dimg_match_digests(table, CAPACITY, digests, MOST, &count, wanted, MOST, slots, &done) == DIMG_OK && done == MOST);
    for (size_t i = 0; i < MOST; i++) {
        const uint32_t expected = find_slot(digests, count, wanted + 16 * i);
        CHECK(slots[i] == (dimg_is_zero(wanted + 16 * i, 16) ? 1 : expected) && slots[i] != 0);
    }
    free(digests);
}

static void test_limits(void)
{
    uint32_t table[CAPACITY] = {0}, small[4] = {0}, slots[KINDS];
    uint8_t *digests = make_buffer(16 * (KINDS + 2)), wanted[16 * KINDS];
    size_t count = 2, done;
    memset(digests, 0, 32);
    for (uint32_t i = 0; i < KINDS; i++)
        make_digest(wanted + 16 * i, i + 1);
    CHECK(dimg_match_digests(table, CAPACITY, digests, 12, &count, wanted, KINDS, slots, &done) == DIMG_BUFFER_TOO_SMALL);
    CHECK(done == 10 && count == 12);
    CHECK(dimg_match_digests(table, CAPACITY, digests, KINDS + 2, &count, wanted, KINDS, slots, &done) == DIMG_TABLE_FULL);
    CHECK(done == CAPACITY && count == CAPACITY + 2);
    CHECK(dimg_insert_slots(small, 4, digests, count, 2, 5) == DIMG_TABLE_FULL);
    for (size_t i = 0; i < 4; i++)
        CHECK(small[i] != 0);
    CHECK(dimg_insert_slots(small, 3, digests, count, 2, 1) == DIMG_BAD_ARGUMENT);
    CHECK(dimg_insert_slots(small, 0, digests, count, 2, 0) == DIMG_BAD_ARGUMENT);
    CHECK(dimg_insert_slots(small, 4, digests, count, 2, count) == DIMG_BAD_SLOT);
    CHECK(dimg_insert_slots(small, 4, digests, count, UINT32_MAX, 1) == DIMG_BAD_SLOT);
    size_t one = 1;
    CHECK(dimg_match_digests(table, CAPACITY, digests, 12, &one, wanted, 1, slots, &done) == DIMG_BAD_ARGUMENT);
    memset(table, 0xff, sizeof table);
    CHECK(dimg_match_digests(table, CAPACITY, digests, KINDS + 2, &count, wanted, KINDS, slots, &done) == DIMG_BAD_SLOT);
    CHECK(dimg_insert_slots(table, CAPACITY, digests, count, 2, 60) == DIMG_BAD_SLOT);
    free(digests);
}

int main(void)
{
    uint64_t seed = 5;
    for (int round = 0; round < 2000; round++)
        test_against_search(&seed);
    test_limits();
    printf("match\n");
    return 0;
}
