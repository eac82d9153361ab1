/* SPDX-License-Identifier: Apache-2.0
 *
 * Digests: published vectors on every path; blocks against buffers, which take another way through the code; the 16-lane
 * template, compiled here for the baseline, so that it is run on processors without AVX-512 too. */
#include "../src/digest/blake3.h"
#include "check.h"

#define LANES 16
#define HASH_INPUTS hash_inputs_16
#define BYTE_SHUFFLES 0
#include "../src/digest/lanes.inc.h"

static const uint8_t *const KEY = (const uint8_t *)"whats the Elvish word for friend";

/* From the test_vectors.json that BLAKE3's authors publish; outputs cut to 32 bytes. Input byte i is i % 251. */
static const struct {
    size_t bytes;
    const char *plain, *keyed;
} VECTORS[] = {
    {0, "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262",
        "92b2b75604ed3c761f9d6f62392c8a9227ad0ea3f09573e783f1498a4ed60d26"},
    {1, "2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213",
        "6d7878dfff2f485635d39013278ae14f1454b8c0a3a2d34bc1ab38228a80c95b"},
    {1025, "d00278ae47eb27b34faecf67b4fe263f82d5412916c1ffd97c8cb7fb814b8444",
           "357dc55de0c7e382c900fd6e320acc04146be01db6a8ce7210b7189bd664ea69"},
    {5121, "628bd2cb2004694adaab7bbd778a25df25c47b9d4155a55f8fbd79f2fe154cff",
           "6ccf1c34753e7a044db80798ecd0782a8f76f33563accaddbfbb2e0ea4b2d024"},
    {31744, "62b6960e1a44bcc1eb1a611a8d6235b6b4b78f32e7abc4fb4c6cdcce94895c47",
            "efa53b389ab67c593dba624d898d0f7353ab99e4ac9d42302ee64cbf9939a419"},
    {102400, "bc3e3d41a1146b069abffad3c0d44860cf664390afce4d9661f7902e7943e085",
             "1c35d1a5811083fd7119f5d5d1ba027b4d01c0c6c49fb6ff2cf75393ea5db4a7"},
};

static int is_hex(const uint8_t *bytes, const char *hex)
{
    char text[65];
    for (size_t i = 0; i < 32; i++)
        snprintf(text + 2 * i, 3, "%02x", bytes[i]);
    return strcmp(text, hex) == 0;
}

static void test_vectors(int path)
{
    for (size_t v = 0; v < sizeof VECTORS / sizeof *VECTORS; v++) {
        uint8_t *input = make_buffer(VECTORS[v].bytes), out[32];
        for (size_t i = 0; i < VECTORS[v].bytes; i++)
            input[i] = (uint8_t)(i % 251);
        CHECK(dimg_digest_buffer(path, NULL, input, VECTORS[v].bytes, out, 32) == DIMG_OK);
        CHECK(is_hex(out, VECTORS[v].plain));
        CHECK(dimg_digest_buffer(path, KEY, input, VECTORS[v].bytes, out, 32) == DIMG_OK);
        CHECK(is_hex(out, VECTORS[v].keyed));
        free(input);
    }
}

/* Every block's digest is that of the same bytes as a buffer, cut to 16; zero blocks, wherever they are, have zeroes. */
static void test_blocks(int path, size_t block_bytes, size_t block_count, uint64_t *seed)
{
    const size_t bytes = block_bytes * block_count;
    uint8_t *data = make_buffer(bytes), *digests = make_buffer(16 * block_count), out[16];
    const uint8_t zeroes[16] = {0};
    fill_random(data, bytes, seed);
    for (size_t i = 0; i < block_count; i++)
        if (next_random(seed) % 3 == 0)
            memset(data + i * block_bytes, 0, block_bytes - (next_random(seed) % 4 == 0)); /* or nearly zero */
    CHECK(dimg_digest_blocks(path, KEY, data, block_count, block_bytes, digests) == DIMG_OK);
    for (size_t i = 0; i < block_count; i++) {
        const uint8_t *block = data + i * block_bytes;
        CHECK(dimg_digest_buffer(DIMG_PATH_PORTABLE, KEY, block, block_bytes, out, 16) == DIMG_OK);
        CHECK(memcmp(digests + 16 * i, dimg_is_zero(block, block_bytes) ? zeroes : out, 16) == 0);
    }
    free(data);
    free(digests);
}

static void test_refusals(void)
{
    uint8_t data[1024] = {1}, out[32];
    CHECK(dimg_digest_buffer(99, KEY, data, 1, out, 32) == DIMG_BAD_ARGUMENT);
    CHECK(dimg_digest_buffer(-1, KEY, data, 1, out, 32) == DIMG_BAD_ARGUMENT);
    CHECK(dimg_digest_buffer(0, KEY, data, ((size_t)1 << 20) + 1, out, 32) == DIMG_BAD_ARGUMENT);
    CHECK(dimg_digest_buffer(0, KEY, data, 1, out, 33) == DIMG_BAD_ARGUMENT);
    CHECK(dimg_digest_blocks(0, KEY, data, 1, 0, out) == DIMG_BAD_ARGUMENT);
    CHECK(dimg_digest_blocks(0, KEY, data, 1, 1000, out) == DIMG_BAD_ARGUMENT);
    CHECK(dimg_digest_blocks(0, KEY, data, 1, ((size_t)1 << 20) + 1024, out) == DIMG_BAD_ARGUMENT);
    CHECK(dimg_digest_blocks(0, KEY, data, SIZE_MAX, 2048, out) == DIMG_BAD_ARGUMENT);
    CHECK(dimg_digest_blocks(0, NULL, data, 1, 1024, out) == DIMG_BAD_ARGUMENT);
}

/* Chunks and parents in 16 lanes come to what four portable lanes make of them. */
static void test_sixteen_lanes(uint64_t *seed)
{
    enum { COUNT = 37 };
    uint8_t *data = make_buffer(COUNT * 1024), expected[COUNT * 32], found[COUNT * 32];
    const uint8_t *inputs[COUNT];
    uint32_t counters[COUNT];
    fill_random(data, COUNT * 1024, seed);
    for (size_t i = 0; i < COUNT; i++) {
        inputs[i] = data + 1024 * (COUNT - 1 - i);
        counters[i] = (uint32_t)next_random(seed);
    }
    for (size_t count = 1; count <= COUNT; count++)
        for (size_t messages = 1; messages <= 16; messages += 15) {
            dimg_hash_shape shape = {.message_count = messages, .flags = 16, .first_flags = 1, .last_flags = 2};
            for (size_t i = 0; i < 8; i++)
                shape.key[i] = (uint32_t)next_random(seed);
            dimg_hash_inputs_portable(&shape, inputs, counters, count, expected);
            hash_inputs_16(&shape, inputs, counters, count, found);
            CHECK(memcmp(expected, found, 32 * count) == 0);
        }
    free(data);
}

int main(void)
{
    static const size_t sizes[] = {1024, 2048, 3072, 4096, 5120, 16384, 65536, 1 << 20};
    uint64_t seed = 1;
    int paths = 0;
    for (int path = DIMG_PATH_PORTABLE; path <= DIMG_PATH_NEON; path++) {
        if (!dimg_has_path(path))
            continue;
        paths++;
        test_vectors(path);
        for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
            const size_t most = sizes[s] > 65536 ? 2 : ((size_t)1 << 18) / sizes[s] + 1;
            test_blocks(path, sizes[s], 0, &seed);
            test_blocks(path, sizes[s], 1, &seed);
            test_blocks(path, sizes[s], most, &seed);
        }
        test_blocks(path, 1024, 1100, &seed); /* more than a group */
        test_blocks(path, 3072, 400, &seed);
    }
    CHECK(paths > 0);
    test_refusals();
    test_sixteen_lanes(&seed);
    printf("digest: %d paths\n", paths);
    return 0;
}
