/* SPDX-License-Identifier: Apache-2.0
 *
 * The native core's API as C code includes it: dimg_api.h with guards, and the system headers it needs. */
#ifndef DIMG_H
#define DIMG_H

#include <stddef.h>
#include <stdint.h>

#include "dimg_api.h"

#endif
