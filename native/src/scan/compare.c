/* SPDX-License-Identifier: Apache-2.0
 *
 * Bytes as they are: are they zero, are they equal, copy some blocks. */
#include <string.h>

#include "../../include/dimg.h"

int dimg_is_zero(const uint8_t *data, size_t length)
{
    /* 64 bytes at a time: enough for the compiler's vectors, and data that is not zero mostly shows it at once. */
    size_t done = 0;
    for (; length - done >= 64; done += 64) {
        uint64_t words[8];
        memcpy(words, data + done, sizeof words);
        if ((words[0] | words[1] | words[2] | words[3] | words[4] | words[5] | words[6] | words[7]) != 0)
            return 0;
    }
    for (; done < length; done++)
        if (data[done] != 0)
            return 0;
    return 1;
}

int dimg_is_equal(const uint8_t *a, const uint8_t *b, size_t length)
{
    return length == 0 || memcmp(a, b, length) == 0;
}

int dimg_gather_blocks(const uint8_t *data, size_t block_count, size_t block_bytes, const uint32_t *indexes, size_t count, uint8_t *out, size_t out_bytes)
{
    if (block_bytes == 0 || block_count > SIZE_MAX / block_bytes || count > SIZE_MAX / block_bytes)
        return DIMG_BAD_ARGUMENT;
    if (count * block_bytes > out_bytes)
        return DIMG_BUFFER_TOO_SMALL;
    for (size_t i = 0; i < count; i++)
        if (indexes[i] >= block_count)
            return DIMG_BAD_ARGUMENT;
    size_t done = 0;
    while (done < count) {
        size_t run = 1; /* neighbours are copied together */
        while (done + run < count && indexes[done + run] == indexes[done] + run)
            run++;
        memcpy(out + done * block_bytes, data + indexes[done] * block_bytes, run * block_bytes);
        done += run;
    }
    return DIMG_OK;
}
