/* SPDX-License-Identifier: Apache-2.0
 *
 * Four lanes for NEON, which every 64-bit ARM has; rotations by whole bytes are byte shuffles. */
#if defined(__aarch64__)
#define LANES 4
#define HASH_INPUTS dimg_hash_inputs_neon
#define BYTE_SHUFFLES 1
#include "lanes.inc.h"
#else
typedef int dimg_no_neon; /* C forbids an empty file */
#endif
