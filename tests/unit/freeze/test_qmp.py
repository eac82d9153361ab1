# SPDX-License-Identifier: Apache-2.0
"""Points in time of a running qemu: room for old content, a qemu that dies, monitors that lie."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from deltaimg.errors import FreezeFailed
from deltaimg.freeze import qmp
from deltaimg.freeze.choose import find_obstacles
from deltaimg.freeze.interface import FreezeRequest, Held
from deltaimg.freeze.qmp import QmpFreezer
from deltaimg.image.qemu import monitor as monitors
from deltaimg.image.qemu.monitor import Monitor, MonitorFailure
from deltaimg.model import KIB, MIB
from deltaimg.options.freeze import FreezeOptions
from tests.support.components import small_tmpfs
from tests.support.live_qemu import live_qemu
from tests.support.nbd import make_qcow2, qemu_io


def wait_for_failure(held: Held) -> str:
    deadline_s = time.monotonic() + 20
    while (found := held.find_failure()) is None:
        assert time.monotonic() < deadline_s
        time.sleep(0.02)
    return found


def test_where_room_gets_scarce_the_point_in_time_is_given_up_and_the_guest_writes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qmp, "_RESERVE_BYTES", 16 * MIB)
    disk = make_qcow2(tmp_path / "vm1.qcow2", "128M")
    qemu_io(disk, "write -P 1 0 100M")
    with small_tmpfs(tmp_path / "scratch", 48 * MIB) as scratch, live_qemu(tmp_path, disk) as live:
        request = FreezeRequest(f"{live.address}&scratch={scratch}", FreezeOptions())
        with QmpFreezer().hold(request) as held:
            assert held.find_failure() is None
            live.write(f"write -P 2 0 {36 * MIB}")
            assert "too little room" in wait_for_failure(held)
            assert held.used_bytes >= 36 * MIB
            for start in range(36, 100, 8):
                live.write(f"write -P 2 {start}M 8M")
        assert live.find_traces() == []
        assert list(scratch.iterdir()) == []
        monkeypatch.setattr(qmp, "_RESERVE_BYTES", 64 * MIB)
        with pytest.raises(FreezeFailed, match="too little room"), QmpFreezer().hold(request):
            pass
        assert live.find_traces() == []


def test_a_qemu_that_dies_takes_its_point_in_time_with_it(tmp_path: Path) -> None:
    disk = make_qcow2(tmp_path / "vm1.qcow2", "8M")
    with live_qemu(tmp_path, disk, has_server=False) as live:
        assert find_obstacles(live.address) == [("qmp", "")]
        request = FreezeRequest(live.address, FreezeOptions())
        with QmpFreezer().hold(request) as held:
            live.process.kill()
            live.process.wait()
            assert "can no longer be asked" in wait_for_failure(held)
        assert "cannot be connected to" in find_obstacles(live.address)[0][1]
    assert [each.name for each in tmp_path.iterdir() if each.name.startswith(".")] == []


@contextmanager
def fake_monitor(folder: Path, answer: Callable[[dict[str, object]], bytes], greeting: bytes) -> Iterator[str]:
    path = folder / "fake.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()

        def serve() -> None:
            with suppress(OSError, ValueError):
                connection, _ = listening.accept()
                with connection, connection.makefile("rb") as lines:
                    connection.sendall(greeting)
                    for line in lines:
                        connection.sendall(answer(json.loads(line)))

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield str(path)
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


GREETING = b'{"QMP": {}}\n'


@pytest.mark.parametrize(
    ("greeting", "answer", "said"),
    [
        (b"SSH-2.0\n", b"", "no JSON"),
        (b"[1]\n", b"", "no message"),
        (b"[" * 100_000 + b"\n", b"", "no JSON"),
        (b'{"hello": 1}\n', b"", "is no monitor"),
        (b"", b"", "it took too long"),
        (GREETING, b'{"id": 1, "error": {"desc": "no\\u001b[31m"}}\n', r"qemu: no\x1b[31m"),
        (GREETING, b'{"id": 1, "error": 5}\n', "qemu: None"),
        (GREETING, b"x" * 70_000, "without an end"),
        (GREETING, b'{"event": "JOB"}\n', "it took too long"),
    ],
)
def test_monitors_that_lie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, greeting: bytes, answer: bytes, said: str
) -> None:
    monkeypatch.setattr(monitors, "_ANSWER_S", 0.3)
    monkeypatch.setattr(monitors, "_GREETING_S", 0.3)
    monkeypatch.setattr(monitors, "_MAX_LINE_BYTES", 64 * KIB if answer else 1 << 24)
    with fake_monitor(tmp_path, lambda command: answer, greeting) as path, pytest.raises(MonitorFailure) as caught:
        Monitor(path)
    assert said in str(caught.value).replace("\x1b", "ESC")
