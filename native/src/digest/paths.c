/* SPDX-License-Identifier: Apache-2.0
 *
 * Which code paths this build holds and this processor can run. Nothing is cached: asking the compiler's own record of the
 * processor costs a load and a test. */
#include "blake3.h"

#include "../../include/dimg.h"

dimg_hash_inputs *dimg_find_path(int path)
{
    switch (path) {
    case DIMG_PATH_PORTABLE:
        return dimg_hash_inputs_portable;
#if defined(__x86_64__)
    case DIMG_PATH_SSE41:
        return __builtin_cpu_supports("sse4.1") ? dimg_hash_inputs_sse41 : NULL;
    case DIMG_PATH_AVX2:
        return __builtin_cpu_supports("avx2") ? dimg_hash_inputs_avx2 : NULL;
    case DIMG_PATH_AVX512:
        return __builtin_cpu_supports("avx512f") ? dimg_hash_inputs_avx512 : NULL;
#endif
#if defined(__aarch64__)
    case DIMG_PATH_NEON:
        return dimg_hash_inputs_neon;
#endif
    default:
        return NULL;
    }
}

int dimg_has_path(int path)
{
    return dimg_find_path(path) != NULL;
}
