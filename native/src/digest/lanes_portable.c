/* SPDX-License-Identifier: Apache-2.0
 *
 * Four lanes for any processor: whatever vectors the build's baseline has (SSE2 on x86-64), plain words where it has none. */
#define LANES 4
#define HASH_INPUTS dimg_hash_inputs_portable
#define BYTE_SHUFFLES 0
#include "lanes.inc.h"
