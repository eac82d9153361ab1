/* SPDX-License-Identifier: Apache-2.0
 *
 * One window of a VCDIFF delta: ADD, RUN and COPY instructions over a source segment and the target so far. Written from RFC
 * 3284; a window has three sections, and each instruction takes its bytes from their fronts.
 *
 * Always  Lengths and addresses are 64 bits wide and are compared with what is left, never added first, so nothing wraps.
 *         A survey and an application go the same way through the same code: what passed the one passes the other.
 *
 * A copy may begin in the source segment and end in the target (the RFC allows it, xdelta3 does not make it), and it may overlap
 * what it makes: then it repeats itself.
 *
 * Source  RFC 3284, sections 4.3 (windows), 5.3 (addresses) and 5.6 (the default code table). */
#include <string.h>

#include "../../include/dimg.h"

enum { PAGE_BYTES = 4096, NEAR = 4, SAME = 3, SAME_BYTES = 256, HERE_MODE = 1, FIRST_SAME_MODE = 2 + NEAR };
enum { KIND_ADD, KIND_RUN, KIND_COPY };

typedef struct {
    const uint8_t *at;
    const uint8_t *end;
} section;

typedef struct {
    section data, instructions, addresses;
    uint64_t near[NEAR];
    uint64_t same[SAME * SAME_BYTES];
    unsigned next_near;

    uint64_t segment_bytes;
    size_t made; /* of the target's bytes */
    size_t target_bytes;

    /* Either `pages`, or `source` and `target`. */
    uint8_t *pages;
    const uint8_t *source;
    size_t source_bytes;
    const uint32_t *places;
    uint8_t *target;
} window;

/* Half of what an opcode stands for. `size` 0: it follows in the section of instructions. */
typedef struct {
    uint8_t kind, size, mode;
} half;

static inline uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static inline size_t left_in(const section *from)
{
    return (size_t)(from->end - from->at);
}

/* A number in base 128, most significant digit first, the top bit of all bytes but the last set. Any that needs more than
 * 63 bits counts as wrong. */
static int read_number(section *from, uint64_t *out)
{
    uint64_t number = 0;
    while (from->at < from->end) {
        const uint8_t byte = *from->at++;
        if (number >> 56 != 0)
            return DIMG_DELTA_BAD_LENGTH;
        number = number << 7 | (byte & 0x7f);
        if (byte < 0x80) {
            *out = number;
            return DIMG_OK;
        }
    }
    return DIMG_DELTA_ENDS;
}

/* The default code table, RFC 3284 section 5.6, as arithmetic. Returns how many instructions an opcode stands for. */
static inline int read_opcode(uint8_t opcode, half halves[2])
{
    if (opcode == 0) {
        halves[0] = (half){KIND_RUN, 0, 0};
        return 1;
    }
    if (opcode < 19) {
        halves[0] = (half){KIND_ADD, (uint8_t)(opcode - 1), 0};
        return 1;
    }
    if (opcode < 163) {
        const unsigned place = opcode - 19u, size = place % 16;
        halves[0] = (half){KIND_COPY, (uint8_t)(size == 0 ? 0 : size + 3), (uint8_t)(place / 16)};
        return 1;
    }
    if (opcode < 235) {
        const unsigned place = opcode - 163u;
        halves[0] = (half){KIND_ADD, (uint8_t)(place % 12 / 3 + 1), 0};
        halves[1] = (half){KIND_COPY, (uint8_t)(place % 3 + 4), (uint8_t)(place / 12)};
    } else if (opcode < 247) {
        const unsigned place = opcode - 235u;
        halves[0] = (half){KIND_ADD, (uint8_t)(place % 4 + 1), 0};
        halves[1] = (half){KIND_COPY, 4, (uint8_t)(place / 4 + FIRST_SAME_MODE)};
    } else {
        halves[0] = (half){KIND_COPY, 4, (uint8_t)(opcode - 247u)};
        halves[1] = (half){KIND_ADD, 1, 0};
    }
    return 2;
}

/* The address of a copy, in the source segment followed by the target; below what is there. */
static int read_address(window *in, unsigned mode, uint64_t *out)
{
    const uint64_t here = in->segment_bytes + in->made;
    uint64_t address = 0;
    if (mode >= FIRST_SAME_MODE) {
        if (left_in(&in->addresses) == 0)
            return DIMG_DELTA_ENDS;
        address = in->same[(mode - FIRST_SAME_MODE) * SAME_BYTES + *in->addresses.at++];
    } else {
        uint64_t number;
        const int status = read_number(&in->addresses, &number);
        if (status != DIMG_OK)
            return status == DIMG_DELTA_ENDS ? DIMG_DELTA_ENDS : DIMG_DELTA_BAD_COPY;
        if (mode == HERE_MODE) {
            if (number > here)
                return DIMG_DELTA_BAD_COPY;
            address = here - number;
        } else {
            address = number + (mode == 0 ? 0 : in->near[mode - 2]); /* both below 2^63 */
        }
    }
    if (address >= here)
        return DIMG_DELTA_BAD_COPY;
    in->near[in->next_near] = address;
    in->next_near = (in->next_near + 1) % NEAR;
    in->same[address % (SAME * SAME_BYTES)] = address;
    *out = address;
    return DIMG_OK;
}

/* Copy `size` bytes (not 0) from `start` on in the source segment, which has them. */
static int copy_from_source(window *in, uint64_t start, size_t size)
{
    const uint64_t first = start / PAGE_BYTES, last = (start + size - 1) / PAGE_BYTES;
    if (in->pages != NULL) {
        memset(in->pages + first, 1, (size_t)(last - first) + 1);
        return DIMG_OK;
    }
    uint64_t at = start;
    if (in->places != NULL) {
        if (in->places[last] < in->places[first] || in->places[last] - in->places[first] != last - first)
            return DIMG_BUFFER_TOO_SMALL;
        at = (uint64_t)in->places[first] * PAGE_BYTES + start % PAGE_BYTES;
    }
    if (at > in->source_bytes || size > in->source_bytes - at)
        return DIMG_BUFFER_TOO_SMALL;
    memcpy(in->target + in->made, in->source + at, size);
    return DIMG_OK;
}

/* Copy `size` bytes from `start` on in the target, some of which may be made by this very copy. */
static void copy_from_target(uint8_t *target, size_t made, size_t start, size_t size)
{
    while (size > 0) {
        const size_t step = (size_t)least(size, made - start); /* doubles from turn to turn */
        memcpy(target + made, target + start, step);
        made += step;
        size -= step;
    }
}

/* Copy `size` bytes from `address` on, which is below what is there. */
static int copy(window *in, uint64_t address, size_t size)
{
    if (address < in->segment_bytes) {
        const size_t part = (size_t)least(size, in->segment_bytes - address);
        const int status = part == 0 ? DIMG_OK : copy_from_source(in, address, part);
        if (status != DIMG_OK)
            return status;
        in->made += part;
        size -= part;
        address = in->segment_bytes;
    }
    if (in->target != NULL)
        copy_from_target(in->target, in->made, (size_t)(address - in->segment_bytes), size);
    in->made += size;
    return DIMG_OK;
}

static int run_half(window *in, half what)
{
    uint64_t number = what.size;
    if (number == 0) {
        const int status = read_number(&in->instructions, &number);
        if (status != DIMG_OK)
            return status;
    }
    if (number > in->target_bytes - in->made)
        return DIMG_DELTA_BAD_LENGTH;
    const size_t size = (size_t)number;
    if (what.kind == KIND_COPY) {
        uint64_t address;
        const int status = read_address(in, what.mode, &address);
        return status == DIMG_OK ? copy(in, address, size) : status;
    }
    const size_t taken = what.kind == KIND_RUN ? 1 : size;
    if (taken > left_in(&in->data))
        return DIMG_DELTA_ENDS;
    if (in->target != NULL && what.kind == KIND_RUN)
        memset(in->target + in->made, *in->data.at, size);
    else if (in->target != NULL && size > 0)
        memcpy(in->target + in->made, in->data.at, size);
    in->data.at += taken;
    in->made += size;
    return DIMG_OK;
}

static int run_window(window *in)
{
    while (left_in(&in->instructions) > 0) {
        half halves[2];
        const int count = read_opcode(*in->instructions.at++, halves);
        for (int i = 0; i < count; i++) {
            const int status = run_half(in, halves[i]);
            if (status != DIMG_OK)
                return status;
        }
    }
    if (in->made != in->target_bytes)
        return DIMG_DELTA_BAD_LENGTH;
    return left_in(&in->data) == 0 && left_in(&in->addresses) == 0 ? DIMG_OK : DIMG_DELTA_ENDS;
}

static window open_window(const dimg_vcdiff_sections *sections, uint64_t segment_bytes, size_t target_bytes)
{
    return (window){
        .data = {sections->data, sections->data + sections->data_bytes},
        .instructions = {sections->instructions, sections->instructions + sections->instructions_bytes},
        .addresses = {sections->addresses, sections->addresses + sections->addresses_bytes},
        .segment_bytes = segment_bytes,
        .target_bytes = target_bytes,
    };
}

int dimg_survey_vcdiff(const dimg_vcdiff_sections *sections, uint64_t segment_bytes, size_t target_bytes, uint8_t *pages)
{
    if (segment_bytes >> 62 != 0 || (uint64_t)target_bytes >> 62 != 0)
        return DIMG_BAD_ARGUMENT;
    window in = open_window(sections, segment_bytes, target_bytes);
    in.pages = pages;
    return run_window(&in);
}

int dimg_apply_vcdiff(const dimg_vcdiff_sections *sections, uint64_t segment_bytes, const uint8_t *source, size_t source_bytes,
                      const uint32_t *places, uint8_t *target, size_t target_bytes)
{
    if (segment_bytes >> 62 != 0 || (uint64_t)target_bytes >> 62 != 0 || target == NULL)
        return DIMG_BAD_ARGUMENT;
    window in = open_window(sections, segment_bytes, target_bytes);
    in.source = source;
    in.source_bytes = source_bytes;
    in.places = places;
    in.target = target;
    return run_window(&in);
}
