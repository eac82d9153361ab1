/* SPDX-License-Identifier: Apache-2.0
 *
 * What happened to each block since the base: digest it and compare with the digest that the base's map names. */
#include "../../include/dimg.h"
#include "../common/digests.h"

static uint32_t compare_block(const uint8_t *digest, const uint8_t *base_digest)
{
    if (dimg_is_zero_digest(digest))
        return DIMG_ZERO;
    return dimg_is_same_digest(digest, base_digest) ? DIMG_SAME : DIMG_CHANGED;
}

int dimg_scan_blocks(int path, const uint8_t *key, const uint8_t *data, size_t block_count, size_t block_bytes,
                     const uint32_t *base_slots, const uint8_t *digests, size_t digest_count,
                     uint8_t *out_digests, dimg_status_run *out_runs, size_t runs_capacity, size_t *out_run_count)
{
    if (block_count > UINT32_MAX)
        return DIMG_BAD_ARGUMENT;
    for (size_t i = 0; i < block_count; i++)
        if (base_slots[i] >= digest_count)
            return DIMG_BAD_SLOT;
    const int status = dimg_digest_blocks(path, key, data, block_count, block_bytes, out_digests);
    if (status != DIMG_OK)
        return status;
    size_t run_count = 0;
    for (size_t i = 0; i < block_count; i++) {
        const uint32_t found = compare_block(out_digests + DIMG_DIGEST_BYTES * i, digests + DIMG_DIGEST_BYTES * base_slots[i]);
        if (run_count > 0 && out_runs[run_count - 1].status == found) {
            out_runs[run_count - 1].count++;
            continue;
        }
        if (run_count == runs_capacity)
            return DIMG_BUFFER_TOO_SMALL;
        out_runs[run_count++] = (dimg_status_run){.first = (uint32_t)i, .count = 1, .status = found};
    }
    *out_run_count = run_count;
    return DIMG_OK;
}
