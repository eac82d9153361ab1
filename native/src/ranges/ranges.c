/* SPDX-License-Identifier: Apache-2.0
 *
 * Many small ranges of a file in one call. Each costs less than Python's part in a call for it would. */
#define _GNU_SOURCE
#include <errno.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#include "dimg.h"

static int check_ranges(const dimg_range *ranges, size_t count, size_t data_bytes)
{
    for (size_t i = 0; i < count; i++) {
        if (ranges[i].offset < 0 || ranges[i].length < 0 || ranges[i].offset > INT64_MAX - ranges[i].length)
            return DIMG_BAD_ARGUMENT;
        if (ranges[i].start > data_bytes || (uint64_t)ranges[i].length > data_bytes - ranges[i].start)
            return DIMG_BUFFER_TOO_SMALL;
    }
    return DIMG_OK;
}

static ssize_t read_once(int descriptor, uint8_t *out, size_t bytes, int64_t offset, int only_cached)
{
#ifdef RWF_NOWAIT
    const struct iovec memory = {out, bytes};
    if (only_cached)
        return preadv2(descriptor, &memory, 1, (off_t)offset, RWF_NOWAIT);
#else
    if (only_cached) {
        errno = EOPNOTSUPP;
        return -1;
    }
#endif
    return pread(descriptor, out, bytes, (off_t)offset);
}

/* Bytes moved by one call that a signal did not interrupt; -1 with errno set. */
#define UNINTERRUPTED(moved, call)          \
    do                                      \
        (moved) = (call);                   \
    while ((moved) < 0 && errno == EINTR)

int dimg_read_ranges(int descriptor, const dimg_range *ranges, size_t count, int only_cached, uint8_t *out, size_t out_bytes,
                     size_t *done, int *error_number)
{
    const int status = check_ranges(ranges, count, out_bytes);
    *done = 0;
    *error_number = 0;
    if (status != DIMG_OK)
        return status;
    for (; *done < count; ++*done) {
        const dimg_range range = ranges[*done];
        for (int64_t got = 0; got < range.length;) {
            ssize_t more;
            UNINTERRUPTED(more, read_once(descriptor, out + range.start + got, (size_t)(range.length - got), range.offset + got,
                                          only_cached));
            if (more <= 0) {
                *error_number = more < 0 ? errno : 0;
                return DIMG_IO_FAILED;
            }
            got += more;
        }
    }
    return DIMG_OK;
}

int dimg_write_ranges(int descriptor, const dimg_range *ranges, size_t count, size_t most_bytes, const uint8_t *data,
                      size_t data_bytes, size_t *done, int *error_number)
{
    const int status = most_bytes > 0 ? check_ranges(ranges, count, data_bytes) : DIMG_BAD_ARGUMENT;
    *done = 0;
    *error_number = 0;
    if (status != DIMG_OK)
        return status;
    for (; *done < count; ++*done) {
        const dimg_range range = ranges[*done];
        for (int64_t put = 0; put < range.length;) {
            const size_t left = (size_t)(range.length - put);
            ssize_t more;
            UNINTERRUPTED(more, pwrite(descriptor, data + range.start + put, left < most_bytes ? left : most_bytes,
                                       (off_t)(range.offset + put)));
            if (more <= 0) {
                *error_number = more < 0 ? errno : EIO;
                return DIMG_IO_FAILED;
            }
            put += more;
        }
    }
    return DIMG_OK;
}
