/* SPDX-License-Identifier: Apache-2.0
 *
 * Ranges of a file: what was written is read back, in any order and pieces, and a range that fails is returned by its number. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "check.h"

enum { FILE_BYTES = 20000, COUNT = 50 };

static int open_nameless(void)
{
    char path[] = "/tmp/dimg-ranges-XXXXXX";
    const int descriptor = mkstemp(path);
    CHECK(descriptor >= 0 && unlink(path) == 0);
    return descriptor;
}

static void test_round_trip(uint64_t *seed)
{
    const int descriptor = open_nameless();
    uint8_t *data = make_buffer(FILE_BYTES), *back = make_buffer(FILE_BYTES);
    dimg_range ranges[COUNT];
    size_t done;
    int error;
    fill_random(data, FILE_BYTES, seed);
    memset(back, 0, FILE_BYTES);
    for (size_t i = 0; i < COUNT; i++) /* back to front, and in the file in another order than in memory */
        ranges[COUNT - 1 - i] = (dimg_range){(int64_t)((i * 7 % COUNT) * 400), 400, i * 400};
    CHECK(dimg_write_ranges(descriptor, ranges, COUNT, 33, data, FILE_BYTES, &done, &error) == DIMG_OK && done == COUNT);
    CHECK(dimg_read_ranges(descriptor, ranges, COUNT, 0, back, FILE_BYTES, &done, &error) == DIMG_OK && done == COUNT);
    CHECK(memcmp(data, back, FILE_BYTES) == 0);
    close(descriptor);
    free(data);
    free(back);
}

static void test_limits(void)
{
    const int descriptor = open_nameless();
    uint8_t bytes[8] = {0};
    size_t done;
    int error;
    const dimg_range good[] = {{0, 4, 4}, {4, 0, 8}, {2, 4, 0}};
    CHECK(dimg_write_ranges(descriptor, good, 1, 1, bytes, 8, &done, &error) == DIMG_OK);
    CHECK(dimg_read_ranges(descriptor, good, 3, 0, bytes, 8, &done, &error) == DIMG_IO_FAILED && done == 2 && error == 0);
    CHECK(dimg_read_ranges(-1, good, 3, 0, bytes, 8, &done, &error) == DIMG_IO_FAILED && done == 0 && error == EBADF);
    CHECK(dimg_write_ranges(-1, good, 3, 1, bytes, 8, &done, &error) == DIMG_IO_FAILED && done == 0 && error == EBADF);
    CHECK(dimg_write_ranges(descriptor, good, 1, 0, bytes, 8, &done, &error) == DIMG_BAD_ARGUMENT);
    const dimg_range outside[] = {{0, 4, 5}, {0, 1, 9}, {0, 1, UINT64_MAX}, {0, INT64_MAX, 0}};
    for (size_t i = 0; i < 4; i++)
        CHECK(dimg_read_ranges(descriptor, outside + i, 1, 0, bytes, 8, &done, &error) == DIMG_BUFFER_TOO_SMALL && done == 0);
    const dimg_range wrong[] = {{-1, 1, 0}, {0, -1, 0}, {INT64_MAX, 1, 0}};
    for (size_t i = 0; i < 3; i++)
        CHECK(dimg_write_ranges(descriptor, wrong + i, 1, 1, bytes, 8, &done, &error) == DIMG_BAD_ARGUMENT && done == 0);
    close(descriptor);
}

int main(void)
{
    uint64_t seed = 6;
    test_round_trip(&seed);
    test_limits();
    printf("ranges\n");
    return 0;
}
