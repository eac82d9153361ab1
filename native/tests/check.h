/* SPDX-License-Identifier: Apache-2.0
 *
 * What the C tests share: a check that names its line, seeded bytes, and buffers of exactly the size asked for, so that the
 * address sanitizer sees one byte too many. */
#ifndef DIMG_TESTS_CHECK_H
#define DIMG_TESTS_CHECK_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../include/dimg.h"

#define CHECK(condition)                                                              \
    do {                                                                              \
        if (!(condition)) {                                                           \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);   \
            exit(1);                                                                  \
        }                                                                             \
    } while (0)

static inline void *make_buffer(size_t bytes)
{
    void *buffer = malloc(bytes > 0 ? bytes : 1);
    CHECK(buffer != NULL);
    return buffer;
}

static inline uint64_t next_random(uint64_t *state)
{
    uint64_t z = (*state += 0x9E3779B97F4A7C15u); /* splitmix64 */
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

static inline void fill_random(uint8_t *bytes, size_t count, uint64_t *state)
{
    for (size_t i = 0; i < count; i++)
        bytes[i] = (uint8_t)next_random(state);
}

#endif
