/* SPDX-License-Identifier: Apache-2.0
 *
 * Weak sums against their definitions, strong sums against published answers, and the search against one that tries every
 * window. */
#include "check.h"

enum { KINDS = 4 };

static uint64_t define_weak(int kind, const uint8_t *bytes, size_t count)
{
    uint64_t a = 0, b = 0, first = 1, second = 1;
    for (size_t i = 0; i < count; i++) {
        a += bytes[i] + (kind == DIMG_WEAK_ROLLSUM ? 31u : 0u);
        b += a;
        first = first * 0x08104225u + bytes[i];
        second = second * 0x915F77F5u + bytes[i];
    }
    switch (kind) {
    case DIMG_WEAK_RABIN_KARP:
        return first & UINT32_MAX;
    case DIMG_WEAK_WIDE:
        return (first & UINT32_MAX) << 8 | (second & UINT32_MAX) >> 24;
    case DIMG_WEAK_ROLLSUM:
        return (b & 0xFFFF) << 16 | (a & 0xFFFF);
    default:
        return b << 16 | a;
    }
}

static void test_weak_sums(void)
{
    uint64_t seed = 3;
    for (size_t length = 1; length < 700; length += length < 40 ? 1 : 97) {
        uint8_t *data = make_buffer(3 * length);
        fill_random(data, 3 * length, &seed);
        memset(data + length, 0xff, length);
        for (int kind = 0; kind < KINDS; kind++) {
            uint64_t sums[3];
            CHECK(dimg_weak_sums(kind, data, 3, length, sums) == DIMG_OK);
            for (size_t i = 0; i < 3; i++)
                CHECK(sums[i] == define_weak(kind, data + i * length, length));
        }
        free(data);
    }
    uint64_t sum;
    CHECK(dimg_weak_sums(4, NULL, 0, 1, &sum) == DIMG_BAD_ARGUMENT);
    CHECK(dimg_weak_sums(0, NULL, 0, 0, &sum) == DIMG_BAD_ARGUMENT);
    CHECK(dimg_fill_filter(0, NULL, 0, NULL, 7) == DIMG_BAD_ARGUMENT);
}

static void test_strong_sums(void)
{
    static const uint8_t md5_abc[16] = {0x90, 0x01, 0x50, 0x98, 0x3c, 0xd2, 0x4f, 0xb0,
                                        0xd6, 0x96, 0x3f, 0x7d, 0x28, 0xe1, 0x7f, 0x72};
    static const uint8_t blake2b_abc[8] = {0xbd, 0xdd, 0x81, 0x3c, 0x63, 0x42, 0x39, 0x72}; /* of 32 bytes */
    uint8_t out[32 * 20];
    uint8_t abc[3 * 20];
    for (size_t i = 0; i < sizeof abc; i++)
        abc[i] = (uint8_t)("abc"[i % 3]);
    CHECK(dimg_md5_blocks(abc, 20, 3, out) == DIMG_OK);
    for (size_t i = 0; i < 20; i++)
        CHECK(memcmp(out + 16 * i, md5_abc, 16) == 0);
    CHECK(dimg_blake2b_blocks(abc, 20, 3, out) == DIMG_OK);
    for (size_t i = 0; i < 20; i++)
        CHECK(memcmp(out + 32 * i, blake2b_abc, 8) == 0);
}

/* An index with one entry a block, sorted as the search wants it: by insertion, which is enough here. */
typedef struct {
    dimg_block_index index;
    uint64_t *weaks, *mixed;
    uint32_t *filter;
    uint8_t *strongs;
    uint32_t *blocks, *directory;
} made_index;

static const uint8_t KEY[32] = {5};

static int is_before(const made_index *made, uint64_t mixed, uint32_t block, size_t entry)
{
    if (mixed != made->mixed[entry])
        return mixed < made->mixed[entry];
    const size_t size = made->index.strong_bytes;
    return memcmp(made->strongs + size * block, made->strongs + size * made->blocks[entry], size) < 0;
}

static void make_index(made_index *made, int weak_kind, int strong_kind, const uint8_t *old, size_t count, size_t block_bytes)
{
    enum { BITS = 4, FILTER_BITS = 10 };
    const size_t strong_bytes = strong_kind == DIMG_STRONG_BLAKE2B ? 32 : 16;
    made->weaks = make_buffer(8 * count);
    made->mixed = make_buffer(8 * count);
    made->strongs = make_buffer(strong_bytes * count);
    made->blocks = make_buffer(4 * count);
    made->directory = make_buffer(4 * ((1 << BITS) + 1));
    made->filter = make_buffer((1 << FILTER_BITS) / 8);
    memset(made->filter, 0, (1 << FILTER_BITS) / 8);
    made->index = (dimg_block_index){.weak_kind = weak_kind, .strong_kind = strong_kind, .key = KEY, .block_bytes = block_bytes,
        .strong_bytes = strong_bytes, .block_count = count, .weaks = made->weaks, .strongs = made->strongs, .mixed = made->mixed,
        .blocks = made->blocks, .directory = made->directory, .directory_bits = BITS, .filter_bits = FILTER_BITS,
        .filter = made->filter, .prefers_next = 1};
    CHECK(dimg_weak_sums(weak_kind, old, count, block_bytes, made->weaks) == DIMG_OK);
    if (strong_kind == DIMG_STRONG_BLAKE3)
        CHECK(dimg_digest_blocks(0, KEY, old, count, block_bytes, made->strongs) == DIMG_OK);
    else if (strong_kind == DIMG_STRONG_BLAKE2B)
        CHECK(dimg_blake2b_blocks(old, count, block_bytes, made->strongs) == DIMG_OK);
    else
        CHECK(dimg_md5_blocks(old, count, block_bytes, made->strongs) == DIMG_OK);
    CHECK(dimg_fill_filter(weak_kind, made->weaks, count, made->filter, FILTER_BITS) == DIMG_OK);
    size_t entries = 0;
    for (uint32_t block = 0; block < count; block++) {
        const uint64_t mixed = made->weaks[block] * 0x9E3779B97F4A7C15u;
        size_t at = 0;
        while (at < entries && !is_before(made, mixed, block, at))
            at++;
        if (at > 0 && !is_before(made, made->mixed[at - 1], made->blocks[at - 1], at - 1) && made->mixed[at - 1] == mixed
            && memcmp(made->strongs + strong_bytes * block, made->strongs + strong_bytes * made->blocks[at - 1], strong_bytes) == 0)
            continue;
        memmove(made->mixed + at + 1, made->mixed + at, 8 * (entries - at));
        memmove(made->blocks + at + 1, made->blocks + at, 4 * (entries - at));
        made->mixed[at] = mixed;
        made->blocks[at] = block;
        entries++;
    }
    made->index.entry_count = entries;
    for (size_t i = 0; i <= (1 << BITS); i++) {
        size_t first = 0;
        while (first < entries && i < (1 << BITS) && made->mixed[first] >> (64 - BITS) < i)
            first++;
        made->directory[i] = (uint32_t)(i == (1 << BITS) ? entries : first);
    }
}

static void free_index(made_index *made)
{
    free(made->weaks);
    free(made->mixed);
    free(made->strongs);
    free(made->blocks);
    free(made->directory);
    free(made->filter);
}

/* What the search must find: from front to back, the first window that is a block. */
static size_t search_plainly(const uint8_t *old, size_t count, size_t n, const uint8_t *data, size_t bytes, size_t *out)
{
    size_t found = 0;
    for (size_t position = 0; position + n <= bytes;) {
        size_t block = 0;
        while (block < count && memcmp(old + block * n, data + position, n) != 0)
            block++;
        if (block == count) {
            position++;
            continue;
        }
        out[found++] = position;
        position += n;
    }
    return found;
}

static void test_search(int weak_kind, int strong_kind, size_t n)
{
    enum { OLD = 12, NEW = 20 };
    uint64_t seed = 11;
    uint8_t *old = make_buffer(OLD * n), *data = make_buffer(NEW * n);
    size_t expected[NEW + 1];
    fill_random(old, OLD * n, &seed);
    memset(old + 3 * n, 0, n);
    memcpy(old + 7 * n, old + 5 * n, n);
    fill_random(data, NEW * n, &seed);
    memcpy(data, old, 2 * n);
    memcpy(data + 3 * n + 1, old + 4 * n, 4 * n);
    memset(data + 9 * n, 0, 3 * n + 5);
    memcpy(data + 14 * n - 3, old + 6 * n, 2 * n);
    memcpy(data + 19 * n, old + 11 * n, n);
    made_index made;
    make_index(&made, weak_kind, strong_kind, old, OLD, n);
    dimg_block_match matches[NEW];
    size_t count, stretch;
    uint64_t position;
    const uint64_t whole[2] = {0, NEW * n};
    CHECK(dimg_match_blocks(&made.index, data, NEW * n, 0, whole, 1, matches, NEW, &count, &stretch, &position) == DIMG_OK);
    const size_t wanted = search_plainly(old, OLD, n, data, NEW * n, expected);
    size_t found = 0;
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j < matches[i].count; j++) {
            CHECK(found < wanted && matches[i].position + j * n == expected[found++]);
            CHECK(memcmp(old + (matches[i].block + j) * n, data + matches[i].position + j * n, n) == 0);
        }
    CHECK(found == wanted && count < wanted);
    CHECK(dimg_match_blocks(&made.index, data, NEW * n, 0, whole, 1, matches, 1, &count, &stretch, &position)
          == DIMG_BUFFER_TOO_SMALL);
    CHECK(count == 1 && stretch == 0 && position > 0);
    const uint64_t beyond[2] = {0, NEW * n + 1};
    CHECK(dimg_match_blocks(&made.index, data, NEW * n, 0, beyond, 1, matches, NEW, &count, &stretch, &position)
          == DIMG_BAD_ARGUMENT);
    const uint64_t narrow[4] = {5, n + 4, 3 * n + 1, 4 * n + 1};
    CHECK(dimg_match_blocks(&made.index, data, NEW * n, 0, narrow, 2, matches, NEW, &count, &stretch, &position) == DIMG_OK);
    CHECK(count == 1 && matches[0].position == 3 * n + 1 && matches[0].block == 4);
    made.blocks[0] = OLD;
    for (uint32_t i = 1; i < made.index.entry_count; i++)
        made.blocks[i] = OLD;
    made.index.prefers_next = 0;
    CHECK(dimg_match_blocks(&made.index, data, NEW * n, 0, whole, 1, matches, NEW, &count, &stretch, &position)
          == DIMG_BAD_ARGUMENT);
    made.directory[1 << 4]++;
    CHECK(dimg_match_blocks(&made.index, data, NEW * n, 0, whole, 1, matches, NEW, &count, &stretch, &position)
          == DIMG_BAD_ARGUMENT);
    free_index(&made);
    free(old);
    free(data);
}

int main(void)
{
    test_weak_sums();
    test_strong_sums();
    for (int kind = 0; kind < KINDS; kind++) {
        test_search(kind, DIMG_STRONG_BLAKE3, 1024);
        test_search(kind, DIMG_STRONG_BLAKE2B, 257);
        test_search(kind, DIMG_STRONG_MD5, 100);
    }
    printf("rolling\n");
    return 0;
}
