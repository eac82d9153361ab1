# SPDX-License-Identifier: Apache-2.0
"""A point in time of a disk of a running qemu, by its monitor: what the guest overwrites is kept aside first.

    scratch file      `.deltaimg-<process>-<tag>.scratch`; it loses its name as soon as qemu has it open
    scratch nodes     `dimg-<tag>-file`, and over it `dimg-<tag>-disk`, a qcow2 overlay of the guest's disk
    one transaction   a job (backup, sync=none) that copies old content to the overlay before it is overwritten; the new
                      dirty bitmap of the disk; and, on the overlay, what earlier bitmaps of the disk have until now
    export            the overlay, read-only, with those bitmaps, by an NBD server of that qemu: `.dimg-<tag>.nbd` beside the
                      monitor's socket

All of the transaction happens at one moment, between two writes of the guest. An earlier bitmap goes on recording, so that a
run that fails has lost nothing.

Always  everything is undone at the end; by a process that outlives this one where it is killed (`qmp_guard`). What is left
        where both were killed is found by its names, and undone by the next run.
Always  the guest never waits for the reader; and its writes do not fail for want of room for old content: where that gets
        scarce, the point in time is given up.
Source  qemu's docs/interop/live-block-operations and bitmaps; libvirt's pull-mode backups do the same.
"""

from __future__ import annotations

import os
import re
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from deltaimg.errors import FreezeFailed
from deltaimg.freeze import qmp_guard
from deltaimg.freeze.interface import FreezeRequest, Held, WantedBitmaps
from deltaimg.freeze.owner import is_left_over, name_owner
from deltaimg.image.qemu.address import MonitorAddress, parse_monitor_address
from deltaimg.image.qemu.bitmaps import FileBitmap
from deltaimg.image.qemu.monitor import Monitor, MonitorFailure
from deltaimg.image.qemu.qemu_img import QemuImgFailure, run_qemu_img
from deltaimg.model import MIB
from deltaimg.threads import delaying_interruption, start_thread

METHOD: Final = "qmp"
_SAFE_VERSION: Final = 9
_RESERVE_BYTES: Final = 256 * MIB
"""With less room than this for old content, the point in time is given up; it is looked at five times a second."""
_LOOK_S: Final = 0.2
_WAIT_S: Final = 20.0
_PAUSE_S: Final = 0.005
_TAG = re.compile(r"dimg-(?P<tag>[0-9a-f]{8})-file")
_SCRATCH: Final = ".{owner}-{tag}.scratch"
_SERVER: Final = ".dimg-{tag}.nbd"
"""A socket's path has 107 bytes at most, which leaves no room for the name of a process."""
_SERVER_NAME: Final = re.compile(r"\.dimg-(?P<tag>[0-9a-f]{8})\.nbd")


@dataclass(frozen=True, slots=True)
class _Disk:
    """The guest's disk."""

    node: str
    size_bytes: int
    is_qcow2: bool
    folder: str
    """Of its file; a usual one for temporary files where it is no file."""
    bitmaps: tuple[dict[str, Any], ...]


class QmpFreezer:
    """Has a running qemu keep what its guest overwrites."""

    name = METHOD

    def remove_leftovers(self, path: str) -> list[str]:
        """Undo what runs that died have begun in that qemu; return the names of it."""
        address = parse_monitor_address(path)
        with suppress(MonitorFailure), closing(Monitor(address.socket_path)) as monitor:
            return list(_undo_leftovers(monitor, address))
        return []

    def check(self, request: FreezeRequest) -> None:
        """Raise FreezeFailed unless that qemu can be asked, and has the disk."""
        address = parse_monitor_address(request.path)
        try:
            with closing(Monitor(address.socket_path)) as monitor:
                _check_threads(monitor)
                _find_disk(monitor, address)
        except MonitorFailure as failure:
            raise FreezeFailed(request.path, str(failure)) from failure

    @contextmanager
    def hold(self, request: FreezeRequest) -> Iterator[Held]:
        """Make the point in time, and serve it; raises FreezeFailed."""
        address = parse_monitor_address(request.path)
        try:
            monitor = Monitor(address.socket_path)
        except MonitorFailure as failure:
            raise FreezeFailed(request.path, str(failure), hint="is that qemu running?") from failure
        with closing(monitor):
            made = _LivePoint(monitor, address)
            try:
                _begin(made, request)
                yield made
            finally:
                with delaying_interruption():
                    made.end()


def _begin(made: _LivePoint, request: FreezeRequest) -> None:
    """Make a point in time and serve it; raises FreezeFailed."""
    try:
        with delaying_interruption():
            made.begin(request.bitmaps)
    except (MonitorFailure, QemuImgFailure) as failure:
        raise FreezeFailed(request.path, str(failure), hint="see 'Running qemu' in docs/sources.md") from failure
    except OSError as error:
        problem = f"there is no place for old content: {os.strerror(error.errno or 0)}"
        raise FreezeFailed(request.path, problem, hint="name a folder with &scratch=FOLDER") from error


class _LivePoint:
    """What one run begins in a qemu."""

    def __init__(self, monitor: Monitor, address: MonitorAddress) -> None:
        self._monitor, self._address = monitor, address
        self._owner, self._tag = name_owner(), secrets.token_hex(4)
        self._node = ""
        self._wanted: WantedBitmaps | None = None
        self._scratch, self._descriptor = "", -1
        folder = os.path.dirname(address.socket_path)
        self._server = address.nbd_path or os.path.join(folder, _SERVER.format(tag=self._tag))
        self._guard: subprocess.Popen[bytes] | None = None
        self._lost = ""
        self._is_over = threading.Event()
        self._watch: threading.Thread | None = None

    @property
    def path(self) -> str:
        """The address of the export."""
        return f"nbd+unix:///{self._tag}?socket={quote(os.fsencode(self._server), safe='/')}"

    @property
    def used_bytes(self) -> int:
        """How much old content was kept."""
        return os.fstat(self._descriptor).st_blocks * 512 if self._descriptor >= 0 else 0

    def find_failure(self) -> str | None:
        """Return why it is no point in time any more; None if it is."""
        if self._lost:
            return self._lost
        try:
            jobs = self._monitor.execute("query-jobs")
        except MonitorFailure as failure:
            return f"can no longer be asked whether its old content was kept ({failure})"
        return None if any(each["id"] == self._name for each in jobs) else "lost its old content: qemu ended the job"

    def begin(self, wanted: WantedBitmaps | None) -> None:
        """Make it and serve it; raises MonitorFailure or OSError. `end` must be called in any case."""
        _check_threads(self._monitor)
        disk = _find_disk(self._monitor, self._address)
        self._node, self._wanted = disk.node, wanted
        folder = self._address.scratch_folder or disk.folder
        self._scratch = os.path.join(folder, _SCRATCH.format(owner=self._owner, tag=self._tag))
        self._start_guard()
        self._make_scratch(disk)
        self._begin_bitmaps(disk)
        if not self._address.nbd_path:
            self._start_server()
        bitmaps = [{"node": self._overlay, "name": name} for name in (wanted.usable if wanted else ())]
        self._monitor.execute(
            "block-export-add", type="nbd", id=self._name, node_name=self._overlay, name=self._tag, bitmaps=bitmaps
        )
        self._watch = start_thread(self._watch_room, "room for old content")

    def end(self) -> None:
        """Undo all of it, and remove bitmaps that are no longer needed. Nothing is raised."""
        self._is_over.set()
        if self._watch is not None:
            self._watch.join()
        _undo(self._monitor, self._name, self._tag, self._own_server)
        for name in self._wanted.stale if self._wanted else ():
            with suppress(MonitorFailure):
                self._monitor.execute("block-dirty-bitmap-remove", node=self._node, name=name)
        with suppress(OSError):
            os.unlink(self._scratch)
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._end_guard()

    @property
    def _own_server(self) -> str:
        """The socket of the NBD server that this run starts; empty, if it starts none. It need not be there."""
        return "" if self._address.nbd_path else self._server

    @property
    def _name(self) -> str:
        """Of job and export."""
        return f"{self._owner}-{self._tag}"

    @property
    def _file(self) -> str:
        return f"dimg-{self._tag}-file"

    @property
    def _overlay(self) -> str:
        return f"dimg-{self._tag}-disk"

    def _make_scratch(self, disk: _Disk) -> None:
        path = self._scratch
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        if self._count_room() < 2 * _RESERVE_BYTES:
            folder = os.path.dirname(path)
            raise MonitorFailure(f"{folder} has too little room for old content; name another with &scratch=FOLDER")
        # The file is for that qemu, which may run as another user.
        owner = os.stat(self._address.socket_path)
        if (owner.st_uid, owner.st_gid) != (os.geteuid(), os.getegid()):
            os.fchown(self._descriptor, owner.st_uid, owner.st_gid)
        # Not by that qemu: one that is asked for its nodes while it makes a qcow2 file may end (seen of 7.2).
        run_qemu_img("create", "-q", "-f", "qcow2", path, str(disk.size_bytes))
        run = self._monitor.execute
        run("blockdev-add", driver="file", node_name=self._file, filename=path)
        run("blockdev-add", driver="qcow2", node_name=self._overlay, file=self._file, backing=disk.node)
        os.unlink(path)

    def _begin_bitmaps(self, disk: _Disk) -> None:
        """Begin the job, and with it the bitmaps that are wanted; without a new one where qemu cannot keep it."""
        job: dict[str, Any] = {"job-id": self._name, "device": disk.node, "target": self._overlay, "sync": "none"}
        backup = [{"type": "blockdev-backup", "data": job}]
        wanted = self._wanted
        if wanted is None:
            self._monitor.execute("transaction", actions=backup)
            return
        sizes = {each["name"]: each["granularity"] for each in disk.bitmaps}
        wanted.take_found([FileBitmap(each["name"], _find_problem(each)) for each in disk.bitmaps])
        copies: list[dict[str, Any]] = []
        for name in wanted.usable:
            new = {"node": self._overlay, "name": name, "granularity": sizes[name], "disabled": True}
            copies.append({"type": "block-dirty-bitmap-add", "data": new})
            merge = {"node": self._overlay, "target": name, "bitmaps": [{"node": disk.node, "name": name}]}
            copies.append({"type": "block-dirty-bitmap-merge", "data": merge})
        begun = {"node": disk.node, "name": wanted.new, "persistent": disk.is_qcow2}
        begin = [{"type": "block-dirty-bitmap-add", "data": begun}] if wanted.new else []
        try:
            self._monitor.execute("transaction", actions=[*copies, *begin, *backup])
        except MonitorFailure as failure:
            if not begin:
                raise
            wanted.problem = str(failure)
            self._monitor.execute("transaction", actions=[*copies, *backup])

    def _start_guard(self) -> None:
        """Start what undoes all of this if this process is killed; raises OSError."""
        program = [sys.executable, "-I", "-S", qmp_guard.__file__]
        self._guard = subprocess.Popen(
            [*program, self._address.socket_path, self._name, self._tag, self._own_server, self._scratch],
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

    def _start_server(self) -> None:
        try:
            self._monitor.execute("nbd-server-start", addr={"type": "unix", "data": {"path": self._server}})
        except MonitorFailure as failure:
            if "already running" not in str(failure):
                raise
            raise MonitorFailure(f"{failure}: name its socket with &nbd=PATH") from failure

    def _watch_room(self) -> None:
        """Give the point in time up before the guest cannot write any more."""
        while not self._is_over.wait(_LOOK_S):
            if self._count_room() < _RESERVE_BYTES:
                self._lost = "lost its old content: there is too little room left for it"
                _end_job(self._monitor, self._name)
                return

    def _count_room(self) -> int:
        found = os.fstatvfs(self._descriptor)
        return found.f_bavail * found.f_frsize


def _check_threads(monitor: Monitor) -> None:
    """Raise MonitorFailure for a qemu that could not survive the end of an export.

    The repair of CVE-2024-7409, which distributions have added to qemu before version 9 as well, expects that the client of an
    export is closed by the main thread. There it is closed by that of the disk: an assertion ends qemu, and its guest with it.
    """
    version = monitor.execute("query-version")["qemu"]
    has_objects = any(each["name"] == "objects" for each in monitor.execute("qom-list", path="/"))
    objects = monitor.execute("qom-list", path="/objects") if has_objects else []
    has_threads = any(each["type"] == "child<iothread>" for each in objects)
    if has_threads and int(version["major"]) < _SAFE_VERSION:
        shown = f"{version['major']}.{version['minor']}"
        raise MonitorFailure(
            f"qemu {shown} has I/O threads, and could end with its guest after the backup; 9.0 could not"
        )


def _find_disk(monitor: Monitor, address: MonitorAddress) -> _Disk:
    """Return the disk that an address names, by its node or its device; raises MonitorFailure."""
    nodes = {each["node-name"]: each for each in monitor.execute("query-named-block-nodes")}
    name = address.disk
    if name not in nodes:
        for each in monitor.execute("query-block"):
            if name in (each.get("device"), each.get("qdev")) and "inserted" in each:
                name = each["inserted"].get("node-name")
    if name not in nodes:
        known = ", ".join(sorted(each for each in nodes if not each.startswith(("#", "dimg-")))[:10])
        raise MonitorFailure(f"that qemu has no disk '{address.disk}'" + (f", but {known}" if known else ""))
    node = nodes[name]
    file = str(node.get("file", ""))
    is_file = os.path.isabs(file) and os.path.isfile(file)
    return _Disk(
        name,
        int(node["image"]["virtual-size"]),
        node.get("drv") == "qcow2",
        os.path.dirname(file) if is_file else "/var/tmp",  # noqa: S108  the file has a name for a moment only, and O_EXCL
        tuple(each for each in node.get("dirty-bitmaps", []) if each.get("name")),
    )


def _find_problem(found: dict[str, Any]) -> str:
    """Return why a bitmap says nothing, in words that follow its name; empty if it is in order."""
    if found.get("inconsistent"):
        return "was not stored: a qemu that had the file open did not end well"
    if found.get("busy"):
        return "is used by another job of qemu"
    return "" if found.get("recording") else "records nothing: another program has disabled it"


def _end_job(monitor: Monitor, name: str) -> None:
    """End the export first, so that nothing is read from then on, and then the job; wait for each. Nothing is raised."""
    for query, command, arguments in (
        ("query-block-exports", "block-export-del", {"mode": "hard"}),
        ("query-jobs", "job-cancel", {}),
    ):
        deadline_s = time.monotonic() + _WAIT_S
        while _has(monitor, query, name) and time.monotonic() < deadline_s:
            with suppress(MonitorFailure):
                monitor.execute(command, id=name, **arguments)
            time.sleep(_PAUSE_S)


def _has(monitor: Monitor, query: str, subject: str) -> bool:
    """Return whether a qemu has an export or a job; not, where it cannot be asked."""
    with suppress(MonitorFailure):
        return any(each["id"] == subject for each in monitor.execute(query))
    return False


def _undo(monitor: Monitor, name: str, tag: str, server: str) -> None:
    """Undo what a run has begun, as far as it came. Nothing is raised.

    The nodes go last: their file says which process has made them, and so the rest.
    """
    _end_job(monitor, name)
    if server and os.path.lexists(server):
        with suppress(MonitorFailure):
            monitor.execute("nbd-server-stop")
        with suppress(OSError):
            os.unlink(server)
    for node in (f"dimg-{tag}-disk", f"dimg-{tag}-file"):
        with suppress(MonitorFailure):
            monitor.execute("blockdev-del", node_name=node)


def _undo_leftovers(monitor: Monitor, address: MonitorAddress) -> Iterator[str]:
    """Undo what dead processes have begun, and yield the names of it; raises MonitorFailure."""
    folder, tags = os.path.dirname(address.socket_path), set()
    for node in monitor.execute("query-named-block-nodes"):
        match = _TAG.fullmatch(node["node-name"])
        if match is None:
            continue
        tags.add(match["tag"])
        file = str(node.get("file", ""))
        name = os.path.basename(file).removesuffix(".scratch")[1:]
        if name.endswith(match["tag"]) and is_left_over(name):
            server = os.path.join(folder, _SERVER.format(tag=match["tag"]))
            _undo(monitor, name, match["tag"], server)
            yield name
    scratch_folder = address.scratch_folder or _find_disk(monitor, address).folder
    with suppress(OSError):
        for name in os.listdir(scratch_folder):
            if name.endswith(".scratch") and is_left_over(name[1:]):
                os.unlink(os.path.join(scratch_folder, name))
    yield from _remove_sockets(folder, tags)


def _remove_sockets(folder: str, tags: set[str]) -> Iterator[str]:
    """Remove the sockets of NBD servers that ended with their qemu, and yield their names; those of `tags` are in use."""
    with suppress(OSError):
        for name in os.listdir(folder):
            match = _SERVER_NAME.fullmatch(name)
            if match is not None and match["tag"] not in tags and _is_refused(os.path.join(folder, name)):
                os.unlink(os.path.join(folder, name))
                yield name


def _is_refused(path: str) -> bool:
    """Return whether nothing listens at a socket any more."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as trial:
        trial.settimeout(1)
        try:
            trial.connect(path)
        except ConnectionRefusedError:
            return True
        except OSError:
            pass
    return False
