/* SPDX-License-Identifier: Apache-2.0
 *
 * Deltas: bodies made by hand, round trips of content of many shapes, and damaged bodies, in buffers that end where they say,
 * for the sanitizers to watch. */
#include "check.h"

enum { TOKEN_SOURCE = 4, TOKEN_WITHIN = 3 };

static int decode(const char *sources, const uint8_t *body, size_t body_bytes, uint8_t *content, size_t content_bytes)
{
    return dimg_decode_delta((const uint8_t *)sources, strlen(sources), body, body_bytes, content, content_bytes);
}

/* "ab" and "cde" of the sources with a single 'x' between them, its copy "abx", and a long rest. */
static void test_known(void)
{
    const uint8_t body[] = {
        1, 6, 3, 1, 0,                        /* head: operations, places, single, short */
        TOKEN_SOURCE, 2, 1 << 3 | TOKEN_SOURCE, 3, TOKEN_WITHIN, 3, /* operations */
        0, 0, 6, 0, 0, 0, 0, 0, 0,                          /* places 0, 0 and 6 in three planes */
        'x' - 'b',                                          /* single, less what is 1 before "cde" in the sources */
        '!', '?',                                           /* long */
    };
    uint8_t content[11];
    CHECK(decode("abcde", body, sizeof body, content, 11) == DIMG_OK);
    CHECK(memcmp(content, "abxcdeabx!?", 11) == 0);
    CHECK(decode("abcde", body, sizeof body, content, 10) == DIMG_DELTA_BAD_LENGTH);
    CHECK(decode("abcd", body, sizeof body, content, 11) == DIMG_DELTA_BAD_COPY);
    for (size_t bytes = 0; bytes < sizeof body; bytes++)
        CHECK(decode("abcde", body, bytes, content, 11) != DIMG_OK);
}

static int decode_changed(size_t place, uint8_t value)
{
    uint8_t body[] = {3, 4, 2, 0, 0, TOKEN_SOURCE, 4, TOKEN_WITHIN, 2, 0, 2, 0, 0, 0, 0}, content[6];
    body[place] = value;
    return decode("abcd", body, sizeof body, content, sizeof content);
}

static void test_refusals(void)
{
    uint8_t content[6];
    CHECK(decode_changed(0, 3) == DIMG_OK);
    CHECK(decode_changed(0, 4) == DIMG_DELTA_BAD_OPERATION);              /* a flag that is not defined */
    CHECK(decode_changed(1, 11) == DIMG_DELTA_ENDS);                      /* more operations than bytes */
    CHECK(decode_changed(5, TOKEN_SOURCE + 1) == DIMG_DELTA_BAD_OPERATION);
    CHECK(decode_changed(5, 1 << 3 | TOKEN_SOURCE) == DIMG_DELTA_ENDS); /* adds a single byte where there is none */
    CHECK(decode_changed(6, 0) == DIMG_DELTA_BAD_LENGTH);                 /* an empty copy */
    CHECK(decode_changed(6, 5) == DIMG_DELTA_BAD_COPY);                   /* out of the sources into the content */
    CHECK(decode_changed(7, TOKEN_SOURCE) == DIMG_DELTA_BAD_COPY);        /* at the end of the sources */
    CHECK(decode_changed(8, 3) == DIMG_DELTA_BAD_LENGTH);
    CHECK(decode_changed(10, 0) == DIMG_DELTA_BAD_COPY);                  /* distance 0 */
    CHECK(decode_changed(10, 5) == DIMG_DELTA_BAD_COPY);                  /* KIND_WITHIN reaches into the sources */
    CHECK(decode_changed(14, 128) == DIMG_DELTA_BAD_COPY);                /* before everything */
    const uint8_t spare_place[] = {0, 2, 2, 0, 0, TOKEN_SOURCE, 4, 0, 0, 0, 0, 0, 0};
    const uint8_t no_place[] = {0, 2, 0, 0, 0, TOKEN_SOURCE, 4};
    CHECK(decode("abcd", spare_place, sizeof spare_place, content, 4) == DIMG_DELTA_ENDS);
    CHECK(decode("abcd", no_place, sizeof no_place, content, 4) == DIMG_DELTA_ENDS);
    const uint8_t long_varint[] = {0, 0x80, 0x80, 0x80, 0x80, 0, 0, 0, 0, 0};
    CHECK(decode("abcd", long_varint, sizeof long_varint, content, 0) == DIMG_DELTA_BAD_LENGTH);
    CHECK(dimg_decode_delta(content, 6, long_varint, 1, content, DIMG_DELTA_MAX_BYTES) == DIMG_BAD_ARGUMENT);
}

/* Bytes that resemble each other: random, copied, counted up, repeated, changed here and there. Each draw is a statement of its
 * own: C does not say which of two in one expression comes first. */
static void make_bytes(uint8_t *bytes, size_t count, uint64_t *seed)
{
    for (size_t at = 0; at < count;) {
        const size_t most = next_random(seed) % 4 == 0 ? 3000 : 40;
        const size_t length = 1 + next_random(seed) % most;
        const size_t end = length < count - at ? at + length : count;
        const uint64_t kind = next_random(seed) % 6, far = next_random(seed) % 2, value = next_random(seed);
        const size_t back = at == 0 ? 0 : 1 + next_random(seed) % (far || at < 200 ? at : 200);
        for (; at < end; at++) {
            if (kind < 2 || back == 0)
                bytes[at] = (uint8_t)(kind == 0 ? next_random(seed) : value);
            else
                bytes[at] = (uint8_t)(bytes[at - back] + (kind == 2 && next_random(seed) % 9 == 0) + (kind == 3 && at % 72 == 0));
        }
    }
}

static void damage(uint8_t *body, size_t bytes, uint64_t *seed)
{
    for (uint64_t changes = 1 + next_random(seed) % 3; changes > 0; changes--) {
        const size_t within = next_random(seed) % 2 && bytes > 200 ? 200 : bytes; /* the head and some operations, or all */
        const size_t place = next_random(seed) % within;
        body[place] = (uint8_t)next_random(seed);
    }
}

enum { BLOCK_SHIFT = 6, BLOCK_BYTES = 1 << BLOCK_SHIFT };

/* How much a body, which may be anything, needs of each block of the sources; NULL if it is refused. */
static uint32_t *count_use(const uint8_t *body, size_t bytes, size_t source_bytes, size_t content_bytes)
{
    const size_t blocks = (source_bytes + BLOCK_BYTES - 1) / BLOCK_BYTES;
    uint32_t *used = make_buffer(blocks * sizeof *used);
    CHECK(dimg_count_delta_use(body, bytes, source_bytes, content_bytes, BLOCK_SHIFT, used, blocks + 1) == DIMG_BAD_ARGUMENT);
    if (dimg_count_delta_use(body, bytes, source_bytes, content_bytes, BLOCK_SHIFT, used, blocks) == DIMG_OK)
        return used;
    free(used);
    return NULL;
}

/* Overwrite the blocks of the sources that a good body does not need. */
static void drop_unused(uint8_t *sources, size_t source_bytes, const uint8_t *body, size_t bytes, size_t content_bytes)
{
    uint32_t *used = count_use(body, bytes, source_bytes, content_bytes);
    CHECK(used != NULL);
    for (size_t at = 0; at < source_bytes; at++)
        sources[at] ^= used[at >> BLOCK_SHIFT] == 0 ? 255 : 0;
    free(used);
}

/* One round: encode, decode, then decode what was damaged, or is for other sources and lengths. Returns how many were refused. */
static size_t try_round(size_t source_bytes, size_t content_bytes, uint64_t *seed)
{
    const size_t work_bytes = dimg_delta_work_bytes(content_bytes), bound = dimg_delta_bound(content_bytes);
    uint8_t *both = make_buffer(source_bytes + content_bytes), *work = make_buffer(work_bytes), *room = make_buffer(bound);
    uint8_t *sources = make_buffer(source_bytes), *content = make_buffer(content_bytes), *again = make_buffer(content_bytes);
    size_t parts[DIMG_DELTA_PARTS], bytes = 0, refused = 0;
    make_bytes(both, source_bytes + content_bytes, seed);
    memcpy(sources, both, source_bytes);
    memcpy(content, both + source_bytes, content_bytes);
    CHECK(dimg_encode_delta(sources, source_bytes, content, content_bytes, work, work_bytes, room, bound, parts) == DIMG_OK);
    for (int i = 0; i < DIMG_DELTA_PARTS; i++)
        bytes += parts[i];
    CHECK(bytes <= bound && bytes <= content_bytes + content_bytes / 32 + 32);
    uint8_t *body = make_buffer(bytes), *bad = make_buffer(bytes);
    memcpy(body, room, bytes);
    CHECK(dimg_decode_delta(sources, source_bytes, body, bytes, again, content_bytes) == DIMG_OK);
    CHECK(memcmp(again, content, content_bytes) == 0);
    drop_unused(sources, source_bytes, body, bytes, content_bytes);
    CHECK(dimg_decode_delta(sources, source_bytes, body, bytes, again, content_bytes) == DIMG_OK);
    CHECK(memcmp(again, content, content_bytes) == 0);
    for (int tries = 0; tries < 20; tries++) {
        const size_t fewer = next_random(seed) % 4 == 0 ? next_random(seed) % (source_bytes + 1) : source_bytes;
        const size_t less = next_random(seed) % 4 == 0 ? next_random(seed) % (content_bytes + 1) : content_bytes;
        memcpy(bad, body, bytes);
        damage(bad, bytes, seed);
        free(count_use(bad, bytes, fewer, less));
        refused += dimg_decode_delta(sources + source_bytes - fewer, fewer, bad, bytes, again + content_bytes - less, less) != DIMG_OK;
    }
    free(both), free(work), free(room), free(sources), free(content), free(again), free(body), free(bad);
    return refused;
}

static void test_random(void)
{
    uint64_t seed = 5;
    size_t refused = 0;
    for (int round = 0; round < 600; round++) {
        const size_t most_source = next_random(&seed) % 5 == 0 ? 20 : 30000, most_content = next_random(&seed) % 5 == 0 ? 40 : 20000;
        const size_t source_bytes = next_random(&seed) % most_source, content_bytes = next_random(&seed) % most_content;
        refused += try_round(source_bytes, content_bytes, &seed);
    }
    CHECK(refused > 4000);
    try_round((1 << 20) + 5, 1 << 16, &seed);          /* sources that are entered less densely */
    try_round((1 << 23) - 4096, 4097, &seed);          /* places of four bytes */
    try_round(0, 0, &seed);
}

/* The body of content after sources in `both`, from work memory that holds `before` everywhere; returns its length. */
static size_t encode_in(const uint8_t *both, size_t source_bytes, size_t content_bytes, uint8_t *work, int before, uint8_t *body)
{
    size_t parts[DIMG_DELTA_PARTS], bytes = 0;
    const size_t work_bytes = dimg_delta_work_bytes(content_bytes), bound = dimg_delta_bound(content_bytes);
    memset(work, before, work_bytes);
    CHECK(dimg_encode_delta(both, source_bytes, both + source_bytes, content_bytes, work, work_bytes, body, bound, parts) == DIMG_OK);
    for (int i = 0; i < DIMG_DELTA_PARTS; i++)
        bytes += parts[i];
    return bytes;
}

/* Bodies are the same on every processor, whatever the work memory held before: FNV-1a of some. */
static void test_same_bytes_everywhere(void)
{
    enum { BOTH = 60000 };
    uint64_t seed = 9, digest = 0xCBF29CE484222325u;
    const size_t bound = dimg_delta_bound(BOTH);
    uint8_t *both = make_buffer(BOTH), *work = make_buffer(dimg_delta_work_bytes(BOTH));
    uint8_t *body = make_buffer(bound), *again = make_buffer(bound);
    for (size_t source_bytes = 0; source_bytes < BOTH; source_bytes += 3001) {
        make_bytes(both, BOTH, &seed);
        const size_t bytes = encode_in(both, source_bytes, BOTH - source_bytes, work, 0, body);
        CHECK(encode_in(both, source_bytes, BOTH - source_bytes, work, 0xFF, again) == bytes);
        CHECK(memcmp(body, again, bytes) == 0);
        for (size_t i = 0; i < bytes; i++)
            digest = (digest ^ body[i]) * 0x100000001B3u;
    }
    CHECK(digest == 0x385CE62F32DB7A4Eu);
    free(both), free(work), free(body), free(again);
}

static void test_arguments(void)
{
    enum { CONTENT = 100 };
    const size_t work_bytes = dimg_delta_work_bytes(CONTENT), bound = dimg_delta_bound(CONTENT);
    uint8_t *work = make_buffer(work_bytes + 1), *body = make_buffer(bound), content[CONTENT] = {0};
    size_t parts[DIMG_DELTA_PARTS];
    CHECK(dimg_encode_delta(content, 0, content, CONTENT, work, work_bytes, body, bound, parts) == DIMG_OK);
    CHECK(dimg_encode_delta(content, 0, content, CONTENT, work + 1, work_bytes, body, bound, parts) == DIMG_BAD_ARGUMENT);
    CHECK(dimg_encode_delta(content, 0, content, CONTENT, work, work_bytes - 1, body, bound, parts) == DIMG_BUFFER_TOO_SMALL);
    CHECK(dimg_encode_delta(content, 0, content, CONTENT, work, work_bytes, body, bound - 1, parts) == DIMG_BUFFER_TOO_SMALL);
    CHECK(dimg_encode_delta(content, DIMG_DELTA_MAX_BYTES, content, 1, work, work_bytes, body, bound, parts) == DIMG_BAD_ARGUMENT);
    free(work), free(body);
}

int main(void)
{
    test_known();
    test_refusals();
    test_random();
    test_same_bytes_everywhere();
    test_arguments();
    printf("delta\n");
    return 0;
}
