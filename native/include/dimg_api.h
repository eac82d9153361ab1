/* SPDX-License-Identifier: Apache-2.0
 *
 * The whole C API of deltaimg's native core. cffi reads this very file, so it holds declarations and comments only.
 *
 * Every function works on the caller's buffers, allocates nothing, keeps no state between calls and may run on any number of
 * threads at once; only those of the section "ranges" do I/O. A result is written only when DIMG_OK is returned, unless its comment says otherwise.
 *
 * Words: a *block* is `block_bytes` of an image; its *digest* is 16 bytes of keyed BLAKE3, or 16 zero bytes when every byte
 * of the block is zero. A *slot* is a number that stands for stored content: 0 is a hole, 1 is zero, 2 and up are stored
 * blocks whose digests are at `digests + 16 * slot` in a table (entries 0 and 1 of which are zero).
 */

typedef enum {
    DIMG_OK = 0,
    DIMG_BAD_ARGUMENT = 1,   /* a length, path or size that the function's comment forbids */
    DIMG_BUFFER_TOO_SMALL = 2,
    DIMG_BAD_RUNS = 3,       /* runs that overlap, are out of order, are empty, or leave their bounds */
    DIMG_TABLE_FULL = 4,
    DIMG_BAD_SLOT = 5,       /* a slot number outside the digest table */
    DIMG_DELTA_ENDS = 6,     /* a section of a delta ends too early, or continues after the last instruction */
    DIMG_DELTA_BAD_COPY = 7, /* a delta copies from where there is nothing */
    DIMG_DELTA_BAD_LENGTH = 8, /* a delta makes more or fewer bytes than it says */
    DIMG_IO_FAILED = 9,      /* the operating system could not read or write all of a range */
    DIMG_DELTA_BAD_OPERATION = 10 /* a delta has a flag or an operation that is not defined */
} dimg_status;

/* The code paths of the digest kernels. All give the same bytes. */
typedef enum {
    DIMG_PATH_PORTABLE = 0,
    DIMG_PATH_SSE41 = 1,
    DIMG_PATH_AVX2 = 2,
    DIMG_PATH_AVX512 = 3,
    DIMG_PATH_NEON = 4
} dimg_path;

/* What a scan found out about a block. */
typedef enum {
    DIMG_SAME = 0,    /* not zero, and its digest equals the base's */
    DIMG_ZERO = 1,    /* every byte is zero, whatever the base says */
    DIMG_CHANGED = 2  /* neither */
} dimg_block_status;

/* Consecutive blocks of one scan with one status; `first` counts from the scan's first block. */
typedef struct {
    uint32_t first;
    uint32_t count;
    uint32_t status;
} dimg_status_run;

/* Consecutive blocks of an image. A data run (slot >= 2) holds slot, slot + 1, ... slot + count - 1 in turn; a run
 * of slot 0 (hole) or 1 (zero) holds that slot throughout. */
typedef struct {
    uint64_t first_block;
    uint32_t count;
    uint32_t slot;
} dimg_run;

/* 1 when this processor and this build can run `path`, else 0. */
int dimg_has_path(int path);

/* Digest one buffer of any length up to 1 MiB: `out` receives the first `out_bytes` (at most 32) of BLAKE3 keyed with `key`
 * (32 bytes), or of plain BLAKE3 when `key` is NULL. Uses 60 KiB of stack.
 * BAD_ARGUMENT: a length above 1 MiB, out_bytes above 32, a path that dimg_has_path denies. */
int dimg_digest_buffer(int path, const uint8_t *key, const uint8_t *data, size_t data_bytes, uint8_t *out, size_t out_bytes);

/* Digest `block_count` blocks that lie one after another in `data` (block_count * block_bytes long) into `out_digests`
 * (16 * block_count bytes). `block_bytes` is a multiple of 1024 from 1024 to 1 MiB; powers of two are fastest. Uses 60 KiB
 * of stack. BAD_ARGUMENT: another block size, no key, a path that dimg_has_path denies. */
int dimg_digest_blocks(int path, const uint8_t *key, const uint8_t *data, size_t block_count, size_t block_bytes, uint8_t *out_digests);

/* Digest blocks as above and compare each with the base: block i of `data` against slot base_slots[i] of `digests`
 * (digest_count entries). Writes the digests of all blocks, and the outcome as at most `runs_capacity` runs, neighbours
 * of one status merged. BUFFER_TOO_SMALL when there are more (block_count always suffices): then all digests and the runs
 * that fit are written. BAD_SLOT when a base slot is not below digest_count: then nothing is. At most 2^32 - 1 blocks. */
int dimg_scan_blocks(int path, const uint8_t *key, const uint8_t *data, size_t block_count, size_t block_bytes,
                     const uint32_t *base_slots, const uint8_t *digests, size_t digest_count,
                     uint8_t *out_digests, dimg_status_run *out_runs, size_t runs_capacity, size_t *out_run_count);

/* 1 when all `length` bytes are zero. */
int dimg_is_zero(const uint8_t *data, size_t length);
/* 1 when `a` and `b` hold the same `length` bytes. */
int dimg_is_equal(const uint8_t *a, const uint8_t *b, size_t length);

/* Copy blocks indexes[0..count) of `data` (block_count blocks of any size but 0) one after another to `out` (out_bytes long).
 * BAD_ARGUMENT: an index not below block_count. BUFFER_TOO_SMALL: count blocks are more than out_bytes. */
int dimg_gather_blocks(const uint8_t *data, size_t block_count, size_t block_bytes, const uint32_t *indexes, size_t count, uint8_t *out, size_t out_bytes);

/* ---- runs: maps of images ----
 * A list of runs is sorted by first_block, has no empty run and no overlap, no run whose slot range passes 2^32,
 * nor one that passes block 2^64 - 1. It may have gaps. Functions that read lists refuse others with BAD_RUNS. Outputs are
 * merged: neighbours that continue each other become one, filled up to a count of 2^32 - 1. */

/* Write the slot of each of blocks [first_block, first_block + block_count) to out_slots; blocks in no run get slot 0. Finds
 * the runs in question by bisection and checks no others, so a span costs nothing for the rest of a long list.
 * BAD_ARGUMENT: the range passes 2^64 - 1. */
int dimg_expand_runs(const dimg_run *runs, size_t run_count, uint64_t first_block, size_t block_count, uint32_t *out_slots);

/* `over` laid on `base`: where both have a block, `over` wins. Needs capacity 2 * over_count + base_count at most. */
int dimg_overlay_runs(const dimg_run *base, size_t base_count, const dimg_run *over, size_t over_count,
                      dimg_run *out, size_t capacity, size_t *out_count);

/* The parts of `runs` whose slot differs from what `base` has for the block, or that `base` does not have at all. Capacity
 * run_count + base_count suffices. */
int dimg_subtract_runs(const dimg_run *runs, size_t run_count, const dimg_run *base, size_t base_count,
                       dimg_run *out, size_t capacity, size_t *out_count);

/* ---- match: which slot holds this content? ----
 * `table` is an open-addressing hash table of `capacity` (a power of two) slot numbers, all zero when new, keyed by the
 * digests in `digests` at those slots. The caller owns both and keeps `capacity` at least 8/7 of the entries. A
 * digest is random to anyone without the key, so its first bytes are its hash. A table that names a slot not below the number
 * of digests gives BAD_SLOT. */

/* Enter slots [first_slot, first_slot + count) but for 0 and 1; a digest that is there already, or is zero, is left as it
 * was. TABLE_FULL when an entry finds no free place in the whole table; those before it stay entered. BAD_SLOT when the slots
 * pass digest_count. */
int dimg_insert_slots(uint32_t *table, size_t capacity, const uint8_t *digests, size_t digest_count, uint32_t first_slot, size_t count);

/* Find the slot of each of `count` digests (16 bytes each at `wanted`). Where one is unknown it becomes a new slot: its digest
 * is appended to `digests` at *digest_count (at least 2; room for digest_capacity entries), entered into `table`, and
 * *digest_count grows; so equal digests in one call share one slot. A digest of zero gives slot 1. Writes out_slots (count) and
 * *digest_count; on TABLE_FULL, BUFFER_TOO_SMALL or BAD_SLOT, *out_done is how many digests were handled. */
int dimg_match_digests(uint32_t *table, size_t capacity, uint8_t *digests, size_t digest_capacity, size_t *digest_count,
                       const uint8_t *wanted, size_t count, uint32_t *out_slots, size_t *out_done);

/* ---- files against files: weak and strong sums as rsync, librsync and deltaimg's own files use them ---- */

/* Weak sums, which roll: cheap hints of what a window of bytes may be. Kept in 64 bits, whatever their own size. */
typedef enum {
    DIMG_WEAK_RABIN_KARP = 0, /* librsync 2.2 and later: a polynomial modulo 2^32 */
    DIMG_WEAK_ROLLSUM = 1,    /* librsync before: two sums modulo 2^16, 31 added to each byte */
    DIMG_WEAK_PYRSYNC = 2,    /* pyrsync2: (b << 16) | a of two sums without bound; here modulo 2^64 */
    DIMG_WEAK_WIDE = 3        /* deltaimg: 40 bits, that of librsync and the upper 8 bits of a second polynomial below it */
} dimg_weak_kind;

/* Strong sums: what a block is. */
typedef enum {
    DIMG_STRONG_BLAKE3 = 0,  /* dimg_digest_blocks: 16 bytes */
    DIMG_STRONG_BLAKE2B = 1, /* BLAKE2b with 32 bytes of digest and no key, as librsync has it */
    DIMG_STRONG_MD5 = 2      /* 16 bytes */
} dimg_strong_kind;

/* The blocks of an old file, to be looked up by content. `by_weak` holds `entry_count` entries sorted by mixed weak sum, then by
 * strong sum (as bytes); no two agree in both. directory[i] is the first entry whose mixed sum has upper bits of at least i, and
 * directory[2^directory_bits] is entry_count; mixed = weak * 0x9E3779B97F4A7C15 modulo 2^64. `filter` has 2^filter_bits bits, as
 * dimg_fill_filter sets them. */
typedef struct {
    int weak_kind;
    int strong_kind;
    int path;              /* for BLAKE3, as is key (32 bytes) */
    const uint8_t *key;
    size_t block_bytes;
    size_t strong_bytes;   /* of each strong sum, so many are compared */
    size_t block_count;
    const uint64_t *weaks;   /* of each block */
    const uint8_t *strongs;  /* of each block, strong_bytes apart */
    size_t entry_count;
    const uint64_t *mixed;   /* of each entry */
    const uint32_t *blocks;  /* of each entry */
    const uint32_t *directory;
    uint32_t directory_bits;
    uint32_t filter_bits;
    const uint32_t *filter;
    int prefers_next;        /* of equal blocks take the one that continues the match before, or lies at the same offset */
} dimg_block_index;

/* `count` blocks of a new file, one after another from `position` on, equal old blocks `block`, block + 1, ... */
typedef struct {
    uint64_t position;
    uint32_t block;
    uint32_t count;
} dimg_block_match;

/* The weak sum of each of `block_count` blocks that lie one after another in `data`. BAD_ARGUMENT: no such kind, blocks of no
 * bytes. */
int dimg_weak_sums(int kind, const uint8_t *data, size_t block_count, size_t block_bytes, uint64_t *out_sums);

/* Set two bits for each weak sum in `filter`, which has 2^filter_bits bits (filter_bits from 8 to 27); no bit is cleared. */
int dimg_fill_filter(int kind, const uint64_t *weaks, size_t count, uint32_t *filter, uint32_t filter_bits);

/* BLAKE2b with 32 bytes of digest of each block, of any size; out_digests has 32 * block_count bytes. */
int dimg_blake2b_blocks(const uint8_t *data, size_t block_count, size_t block_bytes, uint8_t *out_digests);

/* MD5 of each block, of any size; out_digests has 16 * block_count bytes. Not for security: pyrsync2 uses it. */
int dimg_md5_blocks(const uint8_t *data, size_t block_count, size_t block_bytes, uint8_t *out_digests);

/* Find old blocks in a new file, at any offset. Each pair of `stretches` (stretch_count * 2 numbers, ascending) is a [start,
 * end) of `data`, searched from front to back: where a window equals an old block it is taken and the search continues after it,
 * elsewhere the window moves by a byte. `first_position` is where data[0] lies in the new file. Matches are written in order,
 * merged; positions count from data[0].
 *
 * Strong sums of windows that only seemed to match may cost 16 bytes for each byte searched, and a little to begin with: no
 * content makes the search take longer than that; matches may be missed then, but never made up.
 *
 * BUFFER_TOO_SMALL: more than `capacity` matches; those written are good, *out_stretch and *out_position are where to continue.
 * BAD_ARGUMENT: stretches outside `data`, an index that contradicts itself. */
int dimg_match_blocks(const dimg_block_index *index, const uint8_t *data, size_t data_bytes, uint64_t first_position,
                      const uint64_t *stretches, size_t stretch_count, dimg_block_match *out, size_t capacity,
                      size_t *out_count, size_t *out_stretch, uint64_t *out_position);


/* ---- anchors: where similar content may be ----
 * A position is an *anchor* when the 8 bytes from it on say so, whatever its place in a block: a hash of them, shifted right by
 * `shift`, is zero, so that about one position in 2^(32 - shift) is one, and those of a larger shift contain those of
 * a smaller one. The 32 bytes from it on make its *name*. A table of `bucket_count` buckets (1 to 2^32 - 1) of 8
 * places of 8 bytes, all zero when new, remembers a slot for names; a full bucket forgets a place for each newcomer. What it
 * says is a hint and may be wrong. */

/* Find the anchors of `data` (below 4 GiB): names and positions, ascending, at least 16 bytes apart, never two of one name in a
 * row. BAD_ARGUMENT: a capacity below data_bytes / 16, or a shift outside 0 to 31. */
int dimg_collect_anchors(const uint8_t *data, size_t data_bytes, int shift,
                         uint64_t *out_names, uint32_t *out_positions, size_t capacity, size_t *out_count);

/* Remember slots[i] for names[i]; a name that is there already gets its new slot, a slot of 0 is passed over. May run beside
 * dimg_find_anchors. */
int dimg_insert_anchors(uint64_t *table, size_t bucket_count, const uint64_t *names, const uint32_t *slots, size_t count);

/* Write for each name the slot that the table remembers, or 0. */
int dimg_find_anchors(const uint64_t *table, size_t bucket_count, const uint64_t *names, size_t count, uint32_t *out_slots);

/* ---- deltas: content as copies of sources and of itself, and as small differences ----
 * docs/format.md, "Delta body", has the bytes. Sources and content are at most DIMG_DELTA_MAX_BYTES together. */

enum { DIMG_DELTA_PARTS = 5, DIMG_DELTA_MAX_BYTES = 33554432 };

/* The work memory that dimg_encode_delta needs for so much content. */
size_t dimg_delta_work_bytes(size_t content_bytes);

/* No body that makes so much content is longer: an encoder needs the room, a decoder refuses what claims more. */
size_t dimg_delta_bound(size_t content_bytes);

/* Encode `content` against `sources`. `work` is aligned to 4 bytes and forgotten. Writes the body to `body`, which has room for
 * dimg_delta_bound bytes, and the lengths of its parts, one after another: head and operations, places, single, short and long
 * added bytes. Each compresses best by itself. Time is linear in both lengths, whatever the bytes.
 * BAD_ARGUMENT: too much content, or `work` not aligned. BUFFER_TOO_SMALL: `work` or `body`. */
int dimg_encode_delta(const uint8_t *sources, size_t source_bytes, const uint8_t *content, size_t content_bytes, void *work,
                      size_t work_bytes, uint8_t *body, size_t body_bytes, size_t part_bytes[5]);

/* Make all `content_bytes` of `content` from `sources` and a body that may be anything. Time is linear in the lengths.
 * BAD_ARGUMENT: too much content. DELTA_ENDS, DELTA_BAD_COPY, DELTA_BAD_LENGTH, DELTA_BAD_OPERATION: the body is wrong; `content`
 * holds rubbish then. */
int dimg_decode_delta(const uint8_t *sources, size_t source_bytes, const uint8_t *body, size_t body_bytes, uint8_t *content,
                      size_t content_bytes);

/* Count how many bytes of each block of the sources a body copies, or takes differences from; the last block may be cut short.
 * BAD_ARGUMENT: too much content, or not the number of blocks that sources have. Otherwise as dimg_decode_delta, which alone finds
 * whether the added bytes are there. */
int dimg_count_delta_use(const uint8_t *body, size_t body_bytes, size_t source_bytes, size_t content_bytes, unsigned block_shift,
                         uint32_t *used_bytes, size_t block_count);

/* ---- vcdiff: one window of a delta, as RFC 3284 has it ----
 * Nothing in a window is trusted: each instruction is checked against the ends of its sections, of the source segment and of the
 * target before a byte moves. Uses 7 KiB of stack. */

/* The three sections of a window, as they lie in the file and with no secondary compression; the default code table. */
typedef struct {
    const uint8_t *data;
    const uint8_t *instructions;
    const uint8_t *addresses;
    size_t data_bytes;
    size_t instructions_bytes;
    size_t addresses_bytes;
} dimg_vcdiff_sections;

/* Check a window that makes `target_bytes`, and set to 1 each byte of `pages` that stands for a page of 4096 bytes of the source
 * segment that is copied from; others stay. `pages` has a byte for each page of the segment, the last of which may be cut short.
 * DELTA_ENDS, DELTA_BAD_COPY, DELTA_BAD_LENGTH: the window is wrong; some of `pages` are set then. */
int dimg_survey_vcdiff(const dimg_vcdiff_sections *sections, uint64_t segment_bytes, size_t target_bytes, uint8_t *pages);

/* Make a window's target: all `target_bytes` of `target`. `places` says where in `source` each page of the segment lies, as a
 * number of pages; those that nothing is copied from may have any number. NULL: the segment is the first bytes of `source`.
 * DELTA_ENDS, DELTA_BAD_COPY, DELTA_BAD_LENGTH: the window is wrong; `target` holds rubbish then. BUFFER_TOO_SMALL: a page
 * that is copied from does not lie in `source`, or neighbours that one copy needs are not neighbours there. */
int dimg_apply_vcdiff(const dimg_vcdiff_sections *sections, uint64_t segment_bytes, const uint8_t *source, size_t source_bytes,
                      const uint32_t *places, uint8_t *target, size_t target_bytes);

/* ---- ranges: many stretches of one file in one call ---- */

/* `length` bytes at `offset` of a file, and at `start` of memory. */
typedef struct {
    int64_t offset;
    int64_t length;
    uint64_t start;
} dimg_range;

/* Read ranges into `out`, in order; with `only_cached` only what the page cache holds, else EAGAIN, or EOPNOTSUPP where the
 * system cannot tell. `done` says how many were read whole.
 * IO_FAILED: the next could not be, for `error_number`; 0: the file ends. BAD_ARGUMENT: a range below 0 or past 2^63 - 1.
 * BUFFER_TOO_SMALL: one that does not lie in `out`. */
int dimg_read_ranges(int descriptor, const dimg_range *ranges, size_t count, int only_cached, uint8_t *out, size_t out_bytes,
                     size_t *done, int *error_number);

/* Write ranges of `data`, in order, at most `most_bytes` (not 0) at a time. The rest as for reading. */
int dimg_write_ranges(int descriptor, const dimg_range *ranges, size_t count, size_t most_bytes, const uint8_t *data,
                      size_t data_bytes, size_t *done, int *error_number);
