/* SPDX-License-Identifier: Apache-2.0
 *
 * Little-endian words in byte buffers, whatever the processor's own order and alignment rules. */
#ifndef DIMG_COMMON_BYTES_H
#define DIMG_COMMON_BYTES_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define DIMG_BIG_ENDIAN (__BYTE_ORDER__ == __ORDER_BIG_ENDIAN__)

static inline uint32_t dimg_load32(const uint8_t *bytes)
{
    uint32_t word;
    memcpy(&word, bytes, sizeof word);
    return DIMG_BIG_ENDIAN ? __builtin_bswap32(word) : word;
}

static inline uint64_t dimg_load64(const uint8_t *bytes)
{
    uint64_t word;
    memcpy(&word, bytes, sizeof word);
    return DIMG_BIG_ENDIAN ? __builtin_bswap64(word) : word;
}

static inline void dimg_store32(uint8_t *bytes, uint32_t word)
{
    const uint32_t stored = DIMG_BIG_ENDIAN ? __builtin_bswap32(word) : word;
    memcpy(bytes, &stored, sizeof stored);
}

#endif
