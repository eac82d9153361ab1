# SPDX-License-Identifier: Apache-2.0
"""Options of `backup`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime

from msgspec import Struct

from deltaimg.errors import UsageError
from deltaimg.model import GIB, KIB, MAX_BLOCK_BYTES, MAX_DELTA_DEPTH, MIB, MIN_BLOCK_BYTES
from deltaimg.options.bandwidth import BANDWIDTH, Bandwidth
from deltaimg.options.definition import flag, option
from deltaimg.options.freeze import DEFAULT_HOOK_S, FREEZE_MODES, MAX_HOOK_S, FreezeOptions
from deltaimg.options.keep import Span, parse_span
from deltaimg.options.values import SIZE, TEXT, TIME, ValueType, choice, count, ratio
from deltaimg.threads import count_workers

LEVELS = {"fast": 1, "default": 3, "best": 15}
MIN_LEVEL, MAX_LEVEL = 1, 19
DELTA_MODES = ("auto", "none", "zstd", "xdelta", "deltaimg", "best")
FORCED_DELTA_MODES = ("zstd", "xdelta", "deltaimg")
"""Those that take a delta wherever there is one, whether a literal would be smaller or not."""
READ_ERROR_MODES = ("fail", "zero")
IMAGE_FORMATS = ("auto", "qcow2", "vmdk", "vhdx", "vdi", "vpc")
FREE_SPACE_MODES = ("keep", "skip")
DISK_PRIORITIES = ("normal", "idle")
TRACK_MODES = ("none", "auto", "scan", "reflink", "bitmap", "thin", "rbd")
DEFAULT_AUDIT_BLOCKS = 459
"""So many find a claim of which 1 % is wrong with a probability of 99 %: 0.99 to the power of 459 is less than 0.01."""
MAX_AUDIT_BLOCKS = 1_000_000
MAX_BITMAP_BYTES = 1023
"""Of a name, in qemu."""
NEVER = Span()
_BITMAP = re.compile(r"(?P<name>.+)@(?P<snapshot>[0-9a-f]{8,16})")


class BitmapChoice(Struct, frozen=True):
    """A dirty bitmap, and the snapshot since which it records."""

    name: str
    snapshot: str
    """Its id, or the first 8 digits or more."""

    def __str__(self) -> str:
        return f"{self.name}@{self.snapshot}"


def parse_bitmap(text: str) -> BitmapChoice:
    """Return what `NAME@SNAPSHOT` means; raises UsageError."""
    match = _BITMAP.fullmatch(text)
    if match is None or not text.isprintable() or len(match["name"].encode()) > MAX_BITMAP_BYTES:
        raise UsageError(
            f"bitmap '{text[:60]}' is not NAME@SNAPSHOT",
            hint="SNAPSHOT is the id of the one that was read when the bitmap began, as 'backup --json' prints it",
        )
    return BitmapChoice(match["name"], match["snapshot"])


def parse_level(text: str | int) -> int:
    """Return the zstd level that `fast`, `default`, `best` or a number means; raises UsageError."""
    if isinstance(text, str) and text in LEVELS:
        return LEVELS[text]
    try:
        level = int(text)
    except ValueError:
        level = MIN_LEVEL - 1
    if not MIN_LEVEL <= level <= MAX_LEVEL:
        raise UsageError(
            f"compression '{text}' is neither {', '.join(LEVELS)} nor a level from {MIN_LEVEL} to {MAX_LEVEL}",
            hint="'default' is zstd level 3",
        )
    return level


def _format_level(level: int) -> str:
    return next((name for name, number in LEVELS.items() if number == level), str(level))


def _find_level_problem(level: int) -> str | None:
    return None if MIN_LEVEL <= level <= MAX_LEVEL else f"it must be {MIN_LEVEL} to {MAX_LEVEL}"


def _find_block_problem(size: int) -> str | None:
    if MIN_BLOCK_BYTES <= size <= MAX_BLOCK_BYTES and not size & (size - 1):
        return None
    return f"a block must be a power of two from {MIN_BLOCK_BYTES // KIB} KiB to {MAX_BLOCK_BYTES // MIB} MiB"


def _find_command_problem(command: str) -> str | None:
    return None if command.strip() and "\0" not in command else "it is no command"


def _parse_interval(text: str) -> Span:
    return NEVER if text == "never" else parse_span(text)


_INTERVAL = ValueType("SPAN", _parse_interval, lambda span: str(span) or "never")
_COMMAND = ValueType("COMMAND", str, str, _find_command_problem)
_LEVEL = ValueType("LEVEL", parse_level, _format_level, _find_level_problem)
_BLOCK_SIZE = ValueType("SIZE", SIZE.parse, SIZE.format, _find_block_problem)


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupOptions:
    """How an image is backed up. Sizes in bytes."""

    comment: str = option("", TEXT, "A remark about the snapshot, for people.")
    tags: tuple[str, ...] = option(
        (),
        ValueType("TAG", str),
        "Mark the snapshot, for people and for 'forget --keep-tag'; repeatable.",
        "--tag",
        "-t",
        is_repeatable=True,
    )
    level: int = option(
        LEVELS["default"],
        _LEVEL,
        f"{', '.join(LEVELS)}, or a zstd level from {MIN_LEVEL} to {MAX_LEVEL}.",
        "--compression",
        "-c",
    )
    block_bytes: int | None = option(
        None,
        _BLOCK_SIZE,
        "4K to 1M, a power of two. An image keeps that of its first snapshot.",
        "--block-size",
        default_text="4K",
    )
    expected_bytes: int | None = option(None, SIZE, "Refuse an image or stream that is shorter or longer.", "--size")
    taken_at: datetime | None = option(
        None,
        TIME,
        "When the image was saved, as 2026-11-23 or 2026-11-23T02:30. Import older images first.",
        "--time",
        default_text="now",
    )
    freeze: str = option(
        "none",
        choice(FREEZE_MODES, "HOW"),
        "Read the image as of one moment, while it is in use. reflink: from a clone of the file (XFS, btrfs); btrfs: from a "
        "snapshot of its subvolume; lvm: from a snapshot of the volume; rbd: from one of the image in Ceph; hook: while "
        "--pre-freeze has stopped its writers; auto: the first of these that works; none: the image as it is.",
    )
    pre_freeze: str | None = option(
        None, _COMMAND, "Run this shell command before the image is frozen, as 'virsh domfsfreeze vm1'."
    )
    post_freeze: str | None = option(
        None,
        _COMMAND,
        "Run this one as soon as the clone or snapshot is there, or the image is read; whatever happens.",
    )
    hook_limit_s: int = option(
        DEFAULT_HOOK_S, count(1, MAX_HOOK_S), "Seconds that each of these commands may take.", "--hook-timeout"
    )
    snapshot_bytes: int | None = option(
        None,
        SIZE,
        "Room of an LVM snapshot for what is written to the volume meanwhile.",
        "--snapshot-size",
        default_text="by experience",
    )
    track: str = option(
        "none",
        choice(TRACK_MODES, "HOW"),
        "Read only what changed. reflink: what the image does not share with the clone that the last backup kept beside it "
        "(XFS, btrfs); thin: what the volume does not share with the snapshot that the last one kept in its thin pool (LVM); "
        "rbd: what Ceph says differs from the snapshot that the last one kept; "
        "bitmap: what a dirty bitmap lists that the last backup began in the qcow2 file; auto: in the best way that works; "
        "scan: read everything, and keep what the next backup needs; none: read everything. Implies --freeze, except for "
        "qcow2 files.",
    )
    bitmap: BitmapChoice | None = option(
        None,
        ValueType("NAME@SNAPSHOT", parse_bitmap),
        "Read only what this dirty bitmap of an NBD server lists, which began with that snapshot, and a sample of the rest.",
    )
    hints: str | None = option(
        None,
        ValueType("FILE", str),
        "Read only what this file, or '-', says may have changed since the newest snapshot, and a sample of the rest.",
    )
    audit_blocks: int = option(
        DEFAULT_AUDIT_BLOCKS,
        count(1, MAX_AUDIT_BLOCKS),
        "Blocks to read at random of what is said to be unchanged. One that did change makes everything be read.",
    )
    full_scan_every: Span = option(
        Span(days=30),
        _INTERVAL,
        "Read everything if that was last done so long ago: 30d, 2w, 6m; or never.",
    )
    free_space: str = option(
        "keep",
        choice(FREE_SPACE_MODES, "WHAT"),
        "keep; or skip: store holes for what file systems on the image (ext2 to ext4, XFS, btrfs, NTFS, FAT, swap) have free, "
        "where they are clean or frozen.",
    )
    ignores_holes: bool = flag("Read everything, whatever the file system says about holes.", "--no-holes")
    is_direct: bool = flag("Read past the page cache, with O_DIRECT.", "--direct")
    read_limit: Bandwidth | None = option(
        None,
        BANDWIDTH,
        "Read at most this many bytes of the image a second: 50M, or a timetable such as '08:00,20M 20:00,off'.",
        default_text="off",
    )
    disk_priority: str = option(
        "normal",
        choice(DISK_PRIORITIES, "PRIORITY"),
        "idle: use the disks of this host only while no other process does, where their scheduler knows priorities (bfq).",
        "--ionice",
    )
    format: str = option(
        "auto",
        choice(IMAGE_FORMATS, "FORMAT"),
        "Format of the file, whose image is read through qemu-nbd, with its backing files. auto: by the ending of its name "
        "(.qcow2, .vmdk, .vhdx, .vdi, .vhd), if its header agrees; else it is flat.",
    )
    stores_containers: bool = flag("Store a qcow2 file, an archive or the like as it is, not the image in it.", "--raw")
    on_read_error: str = option(
        "fail",
        choice(READ_ERROR_MODES, "WHAT"),
        "fail; or zero: back up the rest of a failing disk, with zeros for what it cannot read, and list that.",
    )
    allow_live: bool = flag("Accept an image that is in use or written to meanwhile, and mark the snapshot.")
    allow_shrink: bool = flag("Accept a stream that is shorter than before, or a file of which little is left.")
    match_budget_bytes: int = option(
        256 * MIB, SIZE, "Memory for finding content that other images store already.", "--match-memory"
    )
    delta: str = option(
        "auto",
        choice(DELTA_MODES, "HOW"),
        "auto: encode new content against similar content where that is smaller, by deltaimg's own codec, and by zstd where "
        "that leaves much; deltaimg, zstd, xdelta: by this codec, wherever there is any; best: the smallest of all, from more "
        "content, and slower; none: never.",
    )
    max_depth: int = option(
        8, count(1, MAX_DELTA_DEPTH), f"Maximum delta chain depth, 1 to {MAX_DELTA_DEPTH}.", "--delta-depth"
    )
    max_read_amplification: float = option(
        1.5,
        ratio(1),
        "Maximum restore read amplification: bytes that a restore decodes for each byte of data. What would take it beyond "
        "that is no delta source, and unchanged content is stored again.",
    )
    max_rewrite_bytes: int | None = option(
        None,
        SIZE,
        "Store at most this much unchanged content again in a run, before compression.",
        "--max-rewrite",
        default_text="a twentieth of the data",
    )
    delta_budget_bytes: int = option(256 * MIB, SIZE, "Memory for finding similar content.", "--delta-memory")
    cache_budget_bytes: int = option(
        GIB, SIZE, "What all images together may take in the cache of this host.", "--cache-size"
    )
    cache_folder: str | None = None
    """Where this host keeps its cache of images from run to run, as `deltaimg.find_cache_folder()` returns it for the
    command line. None keeps nothing: each backup that finds changes then reads the image twice to build the similarity
    index, and content that changes in every run is stored less well."""
    workers: int = field(default_factory=count_workers)
    software: str = ""

    @property
    def freezing(self) -> FreezeOptions:
        """Those of them that say how the image is frozen."""
        return FreezeOptions(**{name: getattr(self, name) for name in FreezeOptions.__struct_fields__})
