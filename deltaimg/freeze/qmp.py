# SPDX-License-Identifier: Apache-2.0
"""A point in time of disks of a running qemu, by its monitor: what the guest overwrites is kept aside first.

    scratch file      `.deltaimg-<process>-<tag>.scratch`, one a disk; it loses its name as soon as qemu has it open
    scratch nodes     `dimg-<tag>-file`, and over it `dimg-<tag>-disk`, a qcow2 overlay of the guest's disk
    one transaction   of all disks: a job each (backup, sync=none) that copies old content to the overlay before it is
                      overwritten; on the overlay, what earlier bitmaps of the disk have until now; and its new dirty bitmap
    exports           the overlays, read-only, with those bitmaps, by an NBD server of that qemu: `.dimg-<tag>.nbd` beside the
                      monitor's socket, with the tag of the first disk

All of the transaction happens at one moment, between two writes of the guest: the jobs come first in it, and each keeps its
disk drained until the end, so that no write comes between the moment and the copy of a bitmap. An earlier bitmap goes on
recording, so that a run that fails has lost nothing.

Always  everything is undone at the end; by a process that outlives this one where it is killed (`qmp_guard`). What is left
        where both were killed is found by its names, and undone by the next run (`qmp_undo`).
Always  the guest never waits for the reader; and its writes do not fail for want of room for old content: where that gets
        scarce, the point in time is given up.
Source  qemu's docs/interop/live-block-operations and bitmaps; qmp_transaction and blockdev_backup_action of its blockdev.c.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from typing import Any, Final
from urllib.parse import quote

from deltaimg.errors import FreezeFailed
from deltaimg.freeze import qmp_guard
from deltaimg.freeze.interface import FreezeRequest, Held
from deltaimg.freeze.methods import QMP
from deltaimg.freeze.owner import name_owner
from deltaimg.freeze.qmp_disk import LiveDisk, check_distinct, check_threads, examine_disk, find_disk
from deltaimg.freeze.qmp_undo import Part, end_job, undo, undo_leftovers
from deltaimg.image.qemu.address import MonitorAddress, find_monitor, parse_monitor_address
from deltaimg.image.qemu.monitor import Monitor, MonitorFailure
from deltaimg.image.qemu.qemu_img import QemuImgFailure, run_qemu_img
from deltaimg.model import MIB
from deltaimg.threads import delaying_interruption, start_thread

_RESERVE_BYTES: Final = 256 * MIB
"""With less room than this for old content, the point in time is given up; it is looked at five times a second."""
_LOOK_S: Final = 0.2

Action = dict[str, Any]
"""Of a transaction."""


class QmpFreezer:
    """Has a running qemu keep what its guest overwrites."""

    name = QMP

    def remove_leftovers(self, paths: Sequence[str]) -> list[str]:
        """Undo what runs that died have begun in these qemus, each asked once; return the names of it."""
        removed = []
        for addresses in _gather(paths):
            with suppress(MonitorFailure), closing(Monitor(addresses[0].socket_path)) as monitor:
                removed += list(undo_leftovers(monitor, addresses))
        return removed

    def check(self, request: FreezeRequest) -> None:
        """Raise FreezeFailed unless that qemu can be asked, and has the disk."""
        examine_disk(request.path)

    @contextmanager
    def hold(self, request: FreezeRequest) -> Iterator[Held]:
        """Make the point in time, and serve it; raises FreezeFailed."""
        with self.hold_together([request]) as held:
            yield held[0]

    @contextmanager
    def hold_together(self, requests: Sequence[FreezeRequest]) -> Iterator[Sequence[Held]]:
        """Make one point in time of several disks of one qemu, and serve them; in order. Raises FreezeFailed."""
        addresses, first = [parse_monitor_address(each.path) for each in requests], requests[0].path
        if len({each.nbd_path for each in addresses}) > 1:
            raise FreezeFailed(
                first,
                "other disks of that qemu name another NBD server",
                hint="give all disks of a qemu the same &nbd=PATH, or none",
            )
        try:
            monitor = Monitor(addresses[0].socket_path)
        except MonitorFailure as failure:
            raise FreezeFailed(first, str(failure), hint="is that qemu running?") from failure
        with closing(monitor):
            made = _LiveDisks(monitor, addresses, requests)
            try:
                _begin(made, first)
                yield made.points
            finally:
                with delaying_interruption():
                    made.end()


def _gather(paths: Sequence[str]) -> list[list[MonitorAddress]]:
    """Return what addresses mean, those of one qemu together."""
    found: dict[str, list[MonitorAddress]] = {}
    for path in paths:
        found.setdefault(find_monitor(path), []).append(parse_monitor_address(path))
    return list(found.values())


def _begin(made: _LiveDisks, path: str) -> None:
    """Make points in time and serve them; raises FreezeFailed."""
    try:
        with delaying_interruption():
            made.begin()
    except (MonitorFailure, QemuImgFailure) as failure:
        raise FreezeFailed(path, str(failure), hint="see 'Running qemu' in docs/sources.md") from failure
    except OSError as error:
        problem = f"there is no place for old content: {os.strerror(error.errno or 0)}"
        raise FreezeFailed(path, problem, hint="name a folder with &scratch=FOLDER") from error


class _LivePoint:
    """What one run begins in a qemu for one disk."""

    def __init__(self, monitor: Monitor, address: MonitorAddress, request: FreezeRequest) -> None:
        self._monitor, self._address, self.wanted = monitor, address, request.bitmaps
        self.part = Part(name_owner(), secrets.token_hex(4))
        self.disk: LiveDisk | None = None
        self.server, self.scratch, self.descriptor = "", "", -1
        self.lost = ""

    @property
    def path(self) -> str:
        """The address of the export."""
        return f"nbd+unix:///{self.part.tag}?socket={quote(os.fsencode(self.server), safe='/')}"

    @property
    def used_bytes(self) -> int:
        """How much old content was kept."""
        return os.fstat(self.descriptor).st_blocks * 512 if self.descriptor >= 0 else 0

    def find_failure(self) -> str | None:
        """Return why it is no point in time any more; None if it is."""
        if self.lost:
            return self.lost
        try:
            jobs = self._monitor.execute("query-jobs")
        except MonitorFailure as failure:
            return f"can no longer be asked whether its old content was kept ({failure})"
        return (
            None if any(each["id"] == self.part.name for each in jobs) else "lost its old content: qemu ended the job"
        )

    def find(self) -> LiveDisk:
        """Find the disk, and choose a place for its old content; raises MonitorFailure."""
        self.disk = find_disk(self._monitor, self._address)
        self.scratch = os.path.join(self._address.scratch_folder or self.disk.folder, self.part.scratch)
        return self.disk

    def make_scratch(self, disk: LiveDisk) -> None:
        """Make the place for old content, and have qemu open it; raises MonitorFailure, QemuImgFailure and OSError."""
        path = self.scratch
        self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        if self.count_room() < 2 * _RESERVE_BYTES:
            folder = os.path.dirname(path)
            raise MonitorFailure(f"{folder} has too little room for old content; name another with &scratch=FOLDER")
        # The file is for that qemu, which may run as another user.
        owner = os.stat(self._address.socket_path)
        if (owner.st_uid, owner.st_gid) != (os.geteuid(), os.getegid()):
            os.fchown(self.descriptor, owner.st_uid, owner.st_gid)
        # Not by that qemu: one that is asked for its nodes while it makes a qcow2 file may end (seen of 7.2).
        run_qemu_img("create", "-q", "-f", "qcow2", path, str(disk.size_bytes))
        run = self._monitor.execute
        run("blockdev-add", driver="file", node_name=self.part.file, filename=path)
        run("blockdev-add", driver="qcow2", node_name=self.part.overlay, file=self.part.file, backing=disk.node)
        os.unlink(path)

    def plan_job(self, disk: LiveDisk) -> Action:
        """Return the action that keeps old content from now on."""
        data = {"job-id": self.part.name, "device": disk.node, "target": self.part.overlay, "sync": "none"}
        return {"type": "blockdev-backup", "data": data}

    def plan_copies(self, disk: LiveDisk) -> list[Action]:
        """Return the actions that copy the earlier bitmaps that say something to the overlay."""
        if self.wanted is None:
            return []
        self.wanted.take_found(disk.describe_bitmaps())
        actions: list[Action] = []
        for name in self.wanted.usable:
            granularity = disk.granularity(name)
            new = {"node": self.part.overlay, "name": name, "granularity": granularity, "disabled": True}
            actions.append({"type": "block-dirty-bitmap-add", "data": new})
            merge = {"node": self.part.overlay, "target": name, "bitmaps": [{"node": disk.node, "name": name}]}
            actions.append({"type": "block-dirty-bitmap-merge", "data": merge})
        return actions

    def plan_bitmap(self, disk: LiveDisk) -> list[Action]:
        """Return the action that begins the new bitmap, if one is wanted."""
        if self.wanted is None or not self.wanted.new:
            return []
        data = {"node": disk.node, "name": self.wanted.new, "persistent": disk.is_qcow2}
        return [{"type": "block-dirty-bitmap-add", "data": data}]

    def begin_bitmap(self, disk: LiveDisk) -> None:
        """Begin the new bitmap, if one is wanted, a moment before the point in time: it may list too much."""
        for action in self.plan_bitmap(disk):
            try:
                self._monitor.execute(action["type"], **action["data"])
            except MonitorFailure as failure:
                assert self.wanted is not None
                self.wanted.problem = str(failure)

    def serve(self) -> None:
        """Export the overlay, with the bitmaps that were copied; raises MonitorFailure."""
        node, name = self.part.overlay, self.part.tag
        bitmaps = [{"node": node, "name": each} for each in (self.wanted.usable if self.wanted else ())]
        self._monitor.execute(
            "block-export-add", type="nbd", id=self.part.name, node_name=node, name=name, bitmaps=bitmaps
        )

    def give_up(self) -> None:
        """Keep old content no longer, before the guest cannot write any more."""
        self.lost = "lost its old content: there is too little room left for it"
        end_job(self._monitor, self.part.name)

    def clean(self) -> None:
        """Remove bitmaps that are no longer needed, and close the scratch file. Nothing is raised."""
        for name in self.wanted.stale if self.wanted and self.disk else ():
            with suppress(MonitorFailure):
                assert self.disk is not None
                self._monitor.execute("block-dirty-bitmap-remove", node=self.disk.node, name=name)
        if self.scratch:
            with suppress(OSError):
                os.unlink(self.scratch)
        if self.descriptor >= 0:
            os.close(self.descriptor)

    def count_room(self) -> int:
        """Return how many bytes there are for old content."""
        found = os.fstatvfs(self.descriptor)
        return found.f_bavail * found.f_frsize


class _LiveDisks:
    """What one run begins in a qemu, for all disks of it that are frozen together."""

    def __init__(
        self, monitor: Monitor, addresses: Sequence[MonitorAddress], requests: Sequence[FreezeRequest]
    ) -> None:
        self._monitor, self._addresses = monitor, addresses
        self.points = [_LivePoint(monitor, *each) for each in zip(addresses, requests, strict=True)]
        self._folder = os.path.dirname(addresses[0].socket_path)
        self._guard: subprocess.Popen[bytes] | None = None
        self._is_over = threading.Event()
        self._watch: threading.Thread | None = None

    def begin(self) -> None:
        """Make the points in time and serve them; raises MonitorFailure or OSError. `end` must be called in any case."""
        check_threads(self._monitor)
        disks = [each.find() for each in self.points]
        check_distinct(self._addresses, disks)
        self._start_guard()
        for point, disk in zip(self.points, disks, strict=True):
            point.make_scratch(disk)
        self._freeze(disks)
        own_server = os.path.join(self._folder, self.points[0].part.server)
        if not self._addresses[0].nbd_path:
            self._start_server(own_server)
        for point in self.points:
            point.server = self._addresses[0].nbd_path or own_server
            point.serve()
        self._watch = start_thread(self._watch_room, "room for old content")

    def end(self) -> None:
        """Undo all of it. Nothing is raised."""
        self._is_over.set()
        if self._watch is not None:
            self._watch.join()
        undo(self._monitor, [each.part for each in self.points], self._folder)
        for point in self.points:
            point.clean()
        self._end_guard()

    def _freeze(self, disks: Sequence[LiveDisk]) -> None:
        """Begin the jobs, and with them the bitmaps that are wanted; without those that qemu cannot keep."""
        pairs = list(zip(self.points, disks, strict=True))
        actions = [point.plan_job(disk) for point, disk in pairs]
        actions += [action for point, disk in pairs for action in point.plan_copies(disk)]
        begin = [action for point, disk in pairs for action in point.plan_bitmap(disk)]
        try:
            self._monitor.execute("transaction", actions=[*actions, *begin])
        except MonitorFailure:
            if not begin:
                raise
            for point, disk in pairs:
                point.begin_bitmap(disk)
            self._monitor.execute("transaction", actions=actions)

    def _start_guard(self) -> None:
        """Start what undoes all of this if this process is killed; raises OSError."""
        program = [sys.executable, "-I", "-S", qmp_guard.__file__, self._addresses[0].socket_path]
        parts = [word for each in self.points for word in (each.part.name, each.part.tag, each.scratch)]
        self._guard = subprocess.Popen(
            [*program, *parts],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._guard.stdout is not None
        with self._guard.stdout as said:
            said.read(1)

    def _end_guard(self) -> None:
        """Have the guard do nothing, and wait for its end."""
        if self._guard is not None:
            assert self._guard.stdin is not None
            with suppress(OSError):
                self._guard.stdin.write(b".")
            with suppress(OSError):
                self._guard.stdin.close()
            self._guard.wait()

    def _start_server(self, path: str) -> None:
        try:
            self._monitor.execute("nbd-server-start", addr={"type": "unix", "data": {"path": path}})
        except MonitorFailure as failure:
            if "already running" not in str(failure):
                raise
            raise MonitorFailure(f"{failure}: name its socket with &nbd=PATH") from failure

    def _watch_room(self) -> None:
        """Give points in time up before the guest cannot write any more."""
        while not self._is_over.wait(_LOOK_S):
            for point in self.points:
                if not point.lost and point.count_room() < _RESERVE_BYTES:
                    point.give_up()
