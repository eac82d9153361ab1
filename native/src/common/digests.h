/* SPDX-License-Identifier: Apache-2.0
 *
 * Comparing 16-byte digests. They are compared as two words, because a call to memcmp costs more than the work. */
#ifndef DIMG_COMMON_DIGESTS_H
#define DIMG_COMMON_DIGESTS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define DIMG_DIGEST_BYTES ((size_t)16)

static inline int dimg_is_same_digest(const uint8_t *a, const uint8_t *b)
{
    uint64_t left[2], right[2];
    memcpy(left, a, sizeof left);
    memcpy(right, b, sizeof right);
    return ((left[0] ^ right[0]) | (left[1] ^ right[1])) == 0;
}

static inline int dimg_is_zero_digest(const uint8_t *digest)
{
    uint64_t words[2];
    memcpy(words, digest, sizeof words);
    return (words[0] | words[1]) == 0;
}

#endif
