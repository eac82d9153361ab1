# SPDX-License-Identifier: Apache-2.0
"""The commands of LVM2, with `--reportformat json`: what is known of a logical volume, snapshots made and removed.

A command is never killed: one that dies halfway may leave devices suspended. Where the run is interrupted meanwhile, the
interruption waits for the command.

Source  lvmreport(7), lvcreate(8); lvs(8) for `lv_attr`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from deltaimg.errors import FreezeFailed
from deltaimg.threads import delaying_interruption

_FIELDS = (
    "vg_name,lv_name,lv_attr,lv_size,lv_tags,origin,pool_lv,vg_free,vg_extent_size,"
    "data_percent,metadata_percent,snap_percent,lv_kernel_major,lv_kernel_minor"
)
_THICK_SNAPSHOT, _THIN, _INVALID = "sS", "V", "IS"
"""Letters of `lv_attr`: the first says what a volume is, the fifth its state."""


class _Row(msgspec.Struct):
    """A row as lvs prints it: everything is text."""

    vg_name: str
    lv_name: str
    lv_attr: str
    lv_size: str
    lv_tags: str = ""
    origin: str = ""
    pool_lv: str = ""
    vg_free: str = "0"
    vg_extent_size: str = "0"
    data_percent: str = ""
    metadata_percent: str = ""
    snap_percent: str = ""
    lv_kernel_major: str = "-1"
    lv_kernel_minor: str = "-1"


class _Report(msgspec.Struct):
    lv: tuple[_Row, ...] = ()


class _Document(msgspec.Struct):
    report: tuple[_Report, ...]


@dataclass(frozen=True, slots=True)
class Volume:
    """A logical volume. Sizes in bytes."""

    group: str
    name: str
    attributes: str
    size_bytes: int
    tags: tuple[str, ...]
    origin: str
    pool: str
    free_bytes: int
    """Of its volume group."""
    extent_bytes: int
    data_percent: float
    metadata_percent: float
    snap_percent: float

    @property
    def full_name(self) -> str:
        """As commands take it."""
        return f"{self.group}/{self.name}"

    @property
    def path(self) -> str:
        """Its device."""
        return f"/dev/{self.group}/{self.name}"

    @property
    def is_thin(self) -> bool:
        """Whether its data is in a thin pool."""
        return self.attributes[:1] == _THIN

    @property
    def is_snapshot(self) -> bool:
        """Whether it is a snapshot that is not thin: there is none of these of itself."""
        return self.attributes[:1] in tuple(_THICK_SNAPSHOT)

    @property
    def is_invalid(self) -> bool:
        """Whether it is a snapshot that overflowed."""
        return self.attributes[4:5] in tuple(_INVALID) or self.snap_percent >= 100


def find_volume(path: str) -> Volume:
    """Return the logical volume that a block device is; raises FreezeFailed."""
    try:
        number = os.stat(path).st_rdev
    except OSError as error:
        raise FreezeFailed(path, f"cannot be examined: {os.strerror(error.errno or 0)}") from error
    chosen = f"lv_kernel_major={os.major(number)} && lv_kernel_minor={os.minor(number)}"
    found = _list(path, ("--select", chosen))
    if not found:
        raise FreezeFailed(path, "is not a logical volume")
    return found[0]


def find_by_name(group: str, name: str) -> Volume | None:
    """Return a volume; None if there is none of that name. Raises FreezeFailed."""
    found = _list(group, ("--select", f"lv_name={name}", group))
    return found[0] if found else None


def list_volumes(group: str) -> list[Volume]:
    """Return the volumes of a group; raises FreezeFailed."""
    return _list(group, (group,))


def find_pool(volume: Volume) -> Volume | None:
    """Return the pool of a thin volume."""
    return next((each for each in list_volumes(volume.group) if each.name == volume.pool), None)


def create_snapshot(volume: Volume, name: str, tag: str, size_bytes: int | None) -> None:
    """Make a snapshot of a volume and activate it, read-only.

    Args:
        size_bytes: of the room for what is written to the origin meanwhile; None for a thin snapshot.

    Raises:
        FreezeFailed: it cannot be made.
    """
    kind = ("--setactivationskip", "n") if size_bytes is None else ("--size", f"{size_bytes}b")
    options = ("--yes", "--quiet", "--snapshot", "--permission", "r", "--name", name, "--addtag", tag, *kind)
    _run(volume.path, "lvcreate", *options, volume.full_name)


def remove_volume(group: str, name: str) -> None:
    """Remove a volume; raises FreezeFailed."""
    _run(f"/dev/{group}/{name}", "lvremove", "--yes", "--quiet", f"{group}/{name}")


def parse_report(text: bytes) -> list[Volume]:
    """Read what lvs prints; raises ValueError."""
    document = msgspec.json.decode(text, type=_Document)
    return [_read_row(row) for report in document.report for row in report.lv]


def _list(subject: str, arguments: Sequence[str]) -> list[Volume]:
    options = ("--reportformat", "json", "--units", "b", "--nosuffix", "--all", "--options", _FIELDS)
    text = _run(subject, "lvs", *options, *arguments)
    try:
        return parse_report(text)
    except (ValueError, msgspec.MsgspecError) as error:
        raise FreezeFailed(subject, "lvs printed what is no report of volumes") from error


def _read_row(row: _Row) -> Volume:
    return Volume(
        group=row.vg_name,
        name=row.lv_name.strip("[]"),
        attributes=row.lv_attr,
        size_bytes=int(row.lv_size),
        tags=tuple(filter(None, row.lv_tags.split(","))),
        origin=row.origin.strip("[]"),
        pool=row.pool_lv.strip("[]"),
        free_bytes=int(row.vg_free),
        extent_bytes=int(row.vg_extent_size),
        data_percent=float(row.data_percent or 0),
        metadata_percent=float(row.metadata_percent or 0),
        snap_percent=float(row.snap_percent or 0),
    )


def _run(subject: str, program: str, *arguments: str) -> bytes:
    """Run a command to its end and return what it prints; raises FreezeFailed with what it said."""
    path = shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if path is None:
        raise FreezeFailed(subject, f"{program} is not installed", hint="LVM2 is in Debian's package lvm2")
    variables = os.environ | {"LC_ALL": "C", "LVM_SUPPRESS_FD_WARNINGS": "1"}
    try:
        # A command is never cut off: see above.
        with delaying_interruption():
            done = subprocess.run(
                [path, *arguments],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                env=variables,
                check=False,
                start_new_session=True,  # a signal from the terminal is for us alone
            )
    except OSError as error:
        raise FreezeFailed(subject, f"{program} cannot be started: {os.strerror(error.errno or 0)}") from error
    if done.returncode != 0:
        lines = [line.strip() for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
        raise FreezeFailed(subject, f"{program}: {lines[-1] if lines else f'exit status {done.returncode}'}")
    return done.stdout
