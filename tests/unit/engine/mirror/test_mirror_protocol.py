# SPDX-License-Identifier: Apache-2.0
"""What comes from the other side is bounded, checked, and where it is wrong one clear error."""

from __future__ import annotations

import base64
import json
import os
import random
import tracemalloc
from pathlib import Path

import pytest

from deltaimg.api.mirror import mirror
from deltaimg.engine.mirror.connect import Destination, parse_destination
from deltaimg.engine.mirror.far import serve
from deltaimg.engine.mirror.protocol import MAGIC, PROTOCOL
from deltaimg.errors import DeltaimgError, FarSideUnusable, MirrorProtocolError, UsageError
from deltaimg.options.mirror import MirrorOptions


def frame(kind: int, payload: bytes) -> bytes:
    return bytes([kind]) + 2 * len(payload).to_bytes(4, "little") + payload


def answer_to(sent: bytes) -> tuple[bytes, DeltaimgError | None]:
    """Return what the far side says to some bytes, and what it raises."""
    to_far, to_near = os.pipe(), os.pipe()
    try:
        os.write(to_far[1], sent)
        os.close(to_far[1])
        raised = None
        try:
            serve(to_far[0], to_near[1], "test")
        except DeltaimgError as error:
            raised = error
        return os.read(to_near[0], 1 << 16), raised
    finally:
        for descriptor in (to_far[0], *to_near):
            os.close(descriptor)


def opening(path: Path, **fields: object) -> bytes:
    named = base64.b64encode(bytes(path)).decode()
    return frame(2, json.dumps({"protocol": PROTOCOL, "path": named, "image_bytes": 10**6} | fields).encode())


def test_the_far_side_refuses_what_no_near_side_sends(tmp_path: Path) -> None:
    good, begun = opening(tmp_path / "copy"), opening(tmp_path / "copy") + frame(7, b'{"block_count": 3}')
    for sent in (
        b"\xff" * 100,
        b"\x02\xff\xff\xff\x7f\xff\xff\xff\x7f",
        b"\x8b\x10\0\0\0\0\0\x20\0" + bytes(16),
        frame(2, b"{}"),
        frame(2, b"\xff\xfe"),
        opening(tmp_path / "copy", protocol=7),
        opening(tmp_path / "copy", image_bytes=2**70),
        opening(tmp_path / "copy", unknown=1),
        good + frame(9, bytes(100)),
        good + frame(7, b'{"block_count": 1000000}'),
        good + frame(7, b'{"block_count": -1}'),
        good + frame(6, bytes(4)),
        good + frame(5, b""),
        good + frame(5, b"\xff" * 8),
        begun + frame(11, bytes(100)),
        begun + frame(9, b"\x01" + bytes(50)),
        begun + frame(9, (1).to_bytes(4, "little") + (2**63).to_bytes(8, "little") + bytes(8)),
        begun + frame(8, b"\x01" * 16),
        begun + frame(8, bytes(15)),
    ):
        said, raised = answer_to(sent)
        assert isinstance(raised, MirrorProtocolError), sent[:100]
        assert said.startswith(MAGIC)
        assert b'"MirrorProtocolError"' in said
        assert not (tmp_path / "copy").exists()


def test_noise_of_any_kind_ends_in_an_error_or_in_silence(tmp_path: Path) -> None:
    chance = random.Random(5)
    valid = (
        opening(tmp_path / "copy") + frame(7, b'{"block_count": 3}') + frame(9, (1).to_bytes(4, "little") + bytes(16))
    )
    for _ in range(300):
        sent = bytearray(valid)
        for _ in range(chance.randrange(1, 4)):
            sent[chance.randrange(len(sent))] = chance.randrange(256)
        del sent[chance.randrange(len(sent)) :]
        answer_to(bytes(sent))
    assert not (tmp_path / "copy").exists()


HELLO = b'{"protocol":99,"version":"9.9"}'


@pytest.mark.parametrize(
    ("said", "ending", "kind", "expected"),
    [
        (b"", "echo 'sh: deltaimg: command not found' >&2; exit 127", FarSideUnusable, "command not found"),
        (b"", "echo 'ssh: connect to host x: refused' >&2; exit 255", FarSideUnusable, "connect to host x: refused"),
        (b"", "true", FarSideUnusable, "ended there"),
        (MAGIC, "true", FarSideUnusable, "ended there"),
        (b"Welcome to the server\n", "true", MirrorProtocolError, "Welcome to the server"),
        (bytes(100_000), "true", MirrorProtocolError, "should speak"),
        (MAGIC + b"\xff" * 9, "true", MirrorProtocolError, "unknown kind"),
        (MAGIC + b"\x01" + b"\xff\xff\xff\x7f" * 2, "true", MirrorProtocolError, "claims"),
        (MAGIC + frame(1, b"{}"), "true", MirrorProtocolError, "not valid"),
        (MAGIC + frame(1, HELLO), "true", MirrorProtocolError, "9.9"),
        (MAGIC + frame(16, b'{"error":"TargetTooSmall","message":"no room"}'), "true", DeltaimgError, "no room"),
    ],
)
def test_what_answers_instead_of_deltaimg_is_one_clear_error(
    said: bytes, ending: str, kind: type[DeltaimgError], expected: str, tmp_path: Path
) -> None:
    (tmp_path / "image").write_bytes(bytes(10_000))
    (tmp_path / "said").write_bytes(said)
    ssh = tmp_path / "ssh"
    ssh.write_text(f"#!/bin/sh\ncat {tmp_path}/said\n{ending}\n")
    ssh.chmod(0o755)
    with pytest.raises(kind, match=expected) as raised:
        mirror(str(tmp_path / "image"), "host:/copy", MirrorOptions(ssh_command=str(ssh)))
    assert raised.value.hint or expected == "no room"


def test_a_copy_that_claims_to_be_huge_takes_no_memory(tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(b"x" * 10_000)
    copy = json.dumps({"key": "00" * 32, "to_read_bytes": 2**60, "mode": "in-place"}).encode()
    ready = json.dumps({"root": "00" * 16, "image_bytes": 2**60}).encode()
    said = MAGIC + frame(1, b'{"protocol":3,"version":"1"}') + frame(3, copy) + frame(4, ready)
    (tmp_path / "said").write_bytes(said + frame(5, bytes(2 << 20)))
    ssh = tmp_path / "ssh"
    ssh.write_text(f"#!/bin/sh\ncat {tmp_path}/said\ncat >/dev/null\n")
    ssh.chmod(0o755)
    tracemalloc.start()
    try:
        with pytest.raises(MirrorProtocolError, match="more or fewer digests"):
            mirror(str(tmp_path / "image"), "host:/copy", MirrorOptions(ssh_command=str(ssh), is_forced=True))
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()


def test_a_destination_is_a_path_here_or_on_a_host() -> None:
    for text, host, path in (
        ("host:/srv/a copy", "host", "/srv/a copy"),
        ("me@host:copy:1", "me@host", "copy:1"),
        ("me@[2001:db8::7]:/srv/copy", "me@2001:db8::7", "/srv/copy"),
        ("/srv/a:b", None, "/srv/a:b"),
        ("./a:b", None, os.path.abspath("a:b")),
        ("copy", None, os.path.abspath("copy")),
    ):
        assert parse_destination(text) == Destination(host, path)
    for text in ("", "host:", "-oProxyCommand=x:/copy", "a b:/copy"):
        with pytest.raises(UsageError):
            parse_destination(text)
