# SPDX-License-Identifier: Apache-2.0
"""The commands of LVM2, with `--reportformat json`: what is known of a logical volume, snapshots made, renamed and removed.

A command is never killed: one that dies halfway may leave devices suspended. Where the run is interrupted meanwhile, the
interruption waits for the command.

Source  lvmreport(7), lvcreate(8); lvs(8) for `lv_attr`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence

import msgspec
from msgspec import Struct

from deltaimg.errors import FreezeFailed, ProgramMissing
from deltaimg.threads import delaying_interruption

_FIELDS = (
    "vg_name,lv_name,lv_attr,lv_size,lv_tags,origin,pool_lv,vg_free,vg_extent_size,"
    "data_percent,metadata_percent,snap_percent,lv_kernel_major,lv_kernel_minor,"
    "lv_uuid,thin_id,chunk_size,metadata_lv,lv_dm_path"
)
_THICK_SNAPSHOT, _THIN, _READ_ONLY, _ACTIVE, _INVALID = "sS", "V", "r", "a", "IS"
"""Letters of `lv_attr`: the first says what a volume is, the second who may write, the fifth its state."""
_PACKAGES = {"thin_delta": "thin-provisioning-tools", "era_invalidate": "thin-provisioning-tools", "dmsetup": "dmsetup"}
"""Of Debian, where it is not lvm2."""


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
    lv_uuid: str = ""
    thin_id: str = ""
    chunk_size: str = "0"
    metadata_lv: str = ""
    lv_dm_path: str = ""


class _Report(msgspec.Struct):
    lv: tuple[_Row, ...] = ()


class _Document(msgspec.Struct):
    report: tuple[_Report, ...]


class Volume(Struct, frozen=True):
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
    uuid: str = ""
    thin_id: int = -1
    """Of a thin volume, in its pool."""
    chunk_bytes: int = 0
    """Of a pool: what it allocates and shares at a time."""
    metadata: str = ""
    """Of a pool: the volume that its metadata is in."""
    node: str = ""
    """Its path as device mapper has it; that of a volume in a pool, such as its metadata, is the only one."""

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
    def is_read_only(self) -> bool:
        """Whether it was made so that nothing can write to it."""
        return self.attributes[1:2].lower() == _READ_ONLY

    @property
    def is_active(self) -> bool:
        """Whether it has a device."""
        return self.attributes[4:5] == _ACTIVE

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
    run_command(volume.path, "lvcreate", *options, volume.full_name)


def remove_volume(group: str, name: str) -> None:
    """Remove a volume; raises FreezeFailed."""
    run_command(f"/dev/{group}/{name}", "lvremove", "--yes", "--quiet", f"{group}/{name}")


def rename_volume(volume: Volume, name: str) -> None:
    """Give a volume another name; who has it open reads on. Raises FreezeFailed."""
    run_command(volume.path, "lvrename", "--quiet", volume.group, volume.name, name)


def change_volume(volume: Volume, *options: str) -> None:
    """Add and remove tags, or activate a volume, by options of lvchange; raises FreezeFailed."""
    run_command(volume.path, "lvchange", "--yes", "--quiet", *options, volume.full_name)


def parse_report(text: bytes) -> list[Volume]:
    """Read what lvs prints; raises ValueError."""
    document = msgspec.json.decode(text, type=_Document)
    return [_read_row(row) for report in document.report for row in report.lv]


def _list(subject: str, arguments: Sequence[str]) -> list[Volume]:
    options = ("--reportformat", "json", "--units", "b", "--nosuffix", "--all", "--options", _FIELDS)
    text = run_command(subject, "lvs", *options, *arguments)
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
        uuid=row.lv_uuid,
        thin_id=int(row.thin_id or -1),
        chunk_bytes=int(row.chunk_size or 0),
        metadata=row.metadata_lv.strip("[]"),
        node=row.lv_dm_path,
    )


def find_program(subject: str, program: str) -> str:
    """Return the path of a command of the system; raises ProgramMissing where it is not installed."""
    path = shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if path is None:
        package = _PACKAGES.get(program, "lvm2")
        raise ProgramMissing(subject, f"{program} is not installed", hint=f"it is in Debian's package {package}")
    return path


def run_command(subject: str, program: str, *arguments: str) -> bytes:
    """Run a command to its end and return what it prints; raises FreezeFailed with what it said."""
    path = find_program(subject, program)
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
