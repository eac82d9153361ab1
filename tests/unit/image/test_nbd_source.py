# SPDX-License-Identifier: Apache-2.0
"""Exports: addresses, servers that lie, die or are slow, what is not read, and reads on many threads."""

from __future__ import annotations

import struct
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from deltaimg.errors import ImageError, UsageError
from deltaimg.image.extents import DATA, HOLE, ZERO
from deltaimg.image.nbd.address import parse_nbd_address
from deltaimg.image.nbd.block_status import read_block_status
from deltaimg.image.nbd.source import NbdSource, open_export
from deltaimg.model import KIB, MIB
from tests.support.nbd import FakeServer, fake_server, make_qcow2, nbdkit, qemu_io, qemu_nbd

chunk = FakeServer.chunk


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nbd://host", ("", "host", 10809, None)),
        ("nbd://host:10810/", ("", "host", 10810, None)),
        ("nbd://[2001:db8::7]/vm%201/root", ("vm 1/root", "2001:db8::7", 10809, None)),
        ("nbd+unix:///vm1?socket=/run/a%20b.sock", ("vm1", "", 10809, "/run/a b.sock")),
    ],
)
def test_addresses(text: str, expected: tuple[str, str, int, str | None]) -> None:
    found = parse_nbd_address(text)
    assert (found.export, found.host, found.port, found.socket_path) == expected


@pytest.mark.parametrize(
    "text",
    [
        "nbd:unix:/run/a.sock",
        "nbd:///vm1",
        "nbd://host:99999/x",
        "nbd://host:0/x",
        "nbd://ann@host/x",
        "nbd://host/x?socket=/run/a",
        "nbd://host/x#y",
        "nbd://host/x%00y",
        "nbd+unix:///x",
        "nbd+unix://host/x?socket=/run/a",
        "nbd+unix:///x?socket=",
        "nbd+unix:///x?socket=/a&socket=/b",
        "nbd+vsock://1/x",
        "nbds://host/x",
        "nbd://[::1/x",
    ],
)
def test_other_forms_are_refused(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_nbd_address(text)
    assert text in str(caught.value)
    assert caught.value.hint


def read(source: NbdSource, offset: int = 0, length: int = 256 * KIB) -> bytes:
    buffer = memoryview(bytearray(length))
    return bytes(buffer[: source.read_into(offset, buffer)])


def read_all(address: str) -> None:
    with closing(open_export(parse_nbd_address(address), answer_s=0.3)) as source:
        source.extents()
        read(source)


def read_from(folder: Path, server: FakeServer) -> str:
    """Open what a server exports, and read it with its extents; return what goes wrong."""
    with (
        fake_server(folder, server) as address,
        pytest.raises(ImageError) as caught,
    ):
        read_all(address)
    assert caught.value.path == address
    return str(caught.value)


@pytest.mark.parametrize(
    ("greeting", "said"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", "is no NBD server"),
        (b"NBDMAGIC\x00\x00\x42\x02\x81\x86\x12\x53\0\0", "an old form"),
        (b"NBDMAGICIHAVEOPT\0\0", "an old form"),
        (b"NBDMAGIC", "did not answer within 0.3 seconds"),
    ],
)
def test_greetings(tmp_path: Path, greeting: bytes, said: str) -> None:
    server = FakeServer()
    server.greeting = greeting
    assert said in read_from(tmp_path, server)


def option_reply(kind: int, data: bytes = b"", length: int | None = None) -> bytes:
    return FakeServer.option_reply(7, kind, data, length)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (option_reply((1 << 31) + 6, b"no such\ndisk"), r"the server has no export 'x' (no such\ndisk)"),
        (option_reply((1 << 31) + 2), "refuses the export 'x' by policy"),
        (option_reply((1 << 31) + 5), "TLS"),
        (option_reply((1 << 31) + 1), "too old"),
        (option_reply(1), "does not say how large"),
        (option_reply(3, struct.pack(">HQH", 0, 1 << 63, 3)) + option_reply(1), "is larger than"),
        (option_reply(3, b"", 1 << 31), "otherwise than the protocol allows"),
        (b"\0" * 20, "otherwise than the protocol allows"),
        (option_reply(3, b"xx") * 300, "never ends its answer"),
        (b"", "did not answer"),
    ],
)
def test_answers_to_options(tmp_path: Path, answer: bytes, said: str) -> None:
    server = FakeServer()
    server.answer_go = lambda: answer
    assert said in read_from(tmp_path, server)


@pytest.mark.parametrize(("least", "most"), [(0, 4096), (3, 4096), (1 << 17, 1 << 20), (4096, 512)])
def test_block_sizes_that_the_protocol_does_not_allow(tmp_path: Path, least: int, most: int) -> None:
    server = FakeServer()
    server.min_block_bytes, server.max_block_bytes = least, most
    assert "does not allow" in read_from(tmp_path, server)


def test_a_size_that_is_no_multiple_of_blocks(tmp_path: Path) -> None:
    server = FakeServer(1000)
    server.min_block_bytes = 512
    assert "only multiples of 512" in read_from(tmp_path, server)


def data(offset: int, length: int) -> bytes:
    return struct.pack(">Q", offset) + bytes(length)


QUARTER = 64 * KIB
READS: dict[str, tuple[Callable[[int, int], bytes | None], str]] = {
    "closes": (lambda cookie, length: None, "closed the connection"),
    "cuts its answer": (lambda cookie, length: chunk(cookie, 1, data(0, 100), length=8 + length), "did not answer"),
    "other bytes": (lambda cookie, length: b"\xff" * 64, "no answer"),
    "another cookie": (lambda cookie, length: chunk(cookie + 9, 1, data(0, length)), "never sent"),
    "twice": (lambda cookie, length: chunk(cookie, 1, data(0, length)) * 2, ""),
    "too much": (lambda cookie, length: chunk(cookie, 1, data(0, length + 1)), "not asked for"),
    "4 GiB": (lambda cookie, length: chunk(cookie, 1, data(0, 0), length=2**32 - 1), "not asked for"),
    "elsewhere": (lambda cookie, length: chunk(cookie, 1, data(length, length)), "not asked for"),
    "before": (lambda cookie, length: chunk(cookie, 1, data(2**64 - 8, length)), "not asked for"),
    "a hole of 4 GiB": (lambda cookie, length: chunk(cookie, 2, struct.pack(">QL", 0, 2**32 - 1)), "not asked for"),
    "too little": (lambda cookie, length: chunk(cookie, 1, data(0, length - 1)), "less than was asked for"),
    "nothing": (lambda cookie, length: chunk(cookie, 0, b""), "less than was asked for"),
    "overlaps": (
        lambda cookie, length: (
            chunk(cookie, 1, data(0, QUARTER), is_last=False)
            + chunk(cookie, 1, data(100, QUARTER), is_last=False)
            + chunk(cookie, 1, data(2 * QUARTER, 2 * QUARTER))
        ),
        "the same bytes twice",
    ),
    "tiny pieces": (
        lambda cookie, length: b"".join(chunk(cookie, 1, data(at, 1), is_last=False) for at in range(2000)),
        "many pieces",
    ),
    "no end": (lambda cookie, length: chunk(cookie, 0, b"", is_last=False), "says nothing"),
    "a status": (lambda cookie, length: chunk(cookie, 5, struct.pack(">LLL", 1, length, 0)), "something else"),
    "an unknown kind": (lambda cookie, length: chunk(cookie, 77, bytes(100)), "something else"),
    "a simple reply": (lambda cookie, length: struct.pack(">LLQ", 0x67446698, 0, cookie), "not agreed on"),
    "a short error": (lambda cookie, length: chunk(cookie, 0x8001, b"\0\0\0\5"), "no form"),
    "a long error": (lambda cookie, length: chunk(cookie, 0x8001, bytes(9000)), "absurd length"),
    "many errors": (
        lambda cookie, length: chunk(cookie, 0x8001, struct.pack(">LH", 5, 0), is_last=False) * 100,
        "one error after another",
    ),
    "an error": (lambda cookie, length: chunk(cookie, 0x8001, struct.pack(">LH", 1, 2) + b"no"), "not permitted"),
    "a simple error": (lambda cookie, length: struct.pack(">LLQ", 0x67446698, 5, cookie), "Input/output error"),
}


@pytest.mark.parametrize("lie", READS)
def test_answers_to_a_read(tmp_path: Path, lie: str) -> None:
    server = FakeServer()
    answer, said = READS[lie]

    def answer_request(command: int, cookie: int, offset: int, length: int) -> bytes | None:
        return server.answer_well(command, cookie, offset, length) if command == 7 else answer(cookie, length)

    server.answer_request = answer_request
    if lie == "twice":  # is noticed by the next read
        with fake_server(tmp_path, server) as address, closing(open_export(parse_nbd_address(address))) as source:
            assert not any(read(source))
            with pytest.raises(ImageError, match="never sent, or the same one twice"):
                read(source)
        return
    assert said in read_from(tmp_path, server)


def status(number: int, *extents: tuple[int, int]) -> bytes:
    return struct.pack(">L", number) + b"".join(struct.pack(">LL", *each) for each in extents)


STATUSES: dict[str, tuple[Callable[[int], bytes], str]] = {
    "of no bytes": (lambda cookie: chunk(cookie, 5, status(1, (0, 0))), "no bytes"),
    "none": (lambda cookie: chunk(cookie, 0, b""), "without an answer"),
    "an empty list": (lambda cookie: chunk(cookie, 5, status(1)), "something else"),
    "an odd length": (lambda cookie: chunk(cookie, 5, status(1, (9, 0)) + b"x"), "something else"),
    "gigabytes": (lambda cookie: chunk(cookie, 5, status(1), length=2**31 + 4), "far too much"),
    "an unknown context": (lambda cookie: chunk(cookie, 5, status(7, (512, 0))), "not asked for"),
    "twice": (lambda cookie: chunk(cookie, 5, status(1, (512, 0)), is_last=False) * 2, "not asked for"),
    "data": (lambda cookie: chunk(cookie, 1, data(0, 512)), "something else"),
    "an error": (lambda cookie: chunk(cookie, 0x8001, struct.pack(">LH", 22, 0)), "cannot say what holds content"),
}


@pytest.mark.parametrize("lie", STATUSES)
def test_answers_to_a_query_for_extents(tmp_path: Path, lie: str) -> None:
    server = FakeServer()
    answer, said = STATUSES[lie]
    server.answer_request = lambda command, cookie, offset, length: answer(cookie)
    assert said in read_from(tmp_path, server)


def test_only_what_reads_as_zeros_is_left_out_and_the_last_extent_may_go_too_far(tmp_path: Path) -> None:
    """A server may say that something is not allocated, and that it does not read as zeros."""
    server = FakeServer(MIB)
    kinds = ((4 * KIB, 0), (4 * KIB, 1), (4 * KIB, 2), (4 * KIB, 3), (2**32 - 1, 3))

    def answer(command: int, cookie: int, offset: int, length: int) -> bytes:
        return chunk(cookie, 5, status(1, *kinds[offset // 4 // KIB :][:2]))

    server.answer_request = answer
    with fake_server(tmp_path, server) as address, closing(open_export(parse_nbd_address(address))) as source:
        found = [(each.start, each.end, each.status) for each in source.extents()]
    assert found == [(0, 8 * KIB, DATA), (8 * KIB, 12 * KIB, ZERO), (12 * KIB, MIB, HOLE)]


def test_a_server_that_reports_far_too_many_extents_is_not_asked_any_further(tmp_path: Path) -> None:
    server = FakeServer(MIB, contexts=("base:allocation", "qemu:dirty-bitmap:b"))

    def answer(command: int, cookie: int, offset: int, length: int) -> bytes:
        holes = [(512, 3), (512, 0)] * 32
        clean = [(512, 0), (512, 1)] * 16
        return chunk(cookie, 5, status(1, *holes), is_last=False) + chunk(cookie, 5, status(2, *clean))

    server.answer_request = answer
    with (
        fake_server(tmp_path, server) as address,
        closing(open_export(parse_nbd_address(address), bitmaps=["b"])) as source,
    ):
        found = read_block_status(source._client, max_extents=100)
    extents = found.to_extents()
    assert extents.count_bytes(HOLE) == 16 * KIB
    assert [(each.start, each.end, each.status) for each in extents][-1] == (32 * KIB - 512, MIB, DATA)
    dirty = found.find_dirty("b")
    assert dirty is not None
    assert dirty[-1].tolist() == [32 * KIB - 512, MIB]
    assert len(dirty) == 32


def test_after_a_failure_every_read_fails_and_none_waits(tmp_path: Path) -> None:
    server = FakeServer()
    server.answer_request = lambda command, cookie, offset, length: None
    with (
        fake_server(tmp_path, server) as address,
        closing(open_export(parse_nbd_address(address))) as source,
        ThreadPoolExecutor(4) as pool,
    ):
        for outcome in [pool.submit(read, source, number * KIB) for number in range(20)]:
            assert isinstance(outcome.exception(), ImageError)


def test_nothing_listens(tmp_path: Path) -> None:
    for address in (f"nbd+unix:///?socket={tmp_path}/none", "nbd://127.0.0.1:1/x", f"nbd+unix:///?socket=/{'x' * 200}"):
        with pytest.raises(ImageError, match="cannot be connected to") as caught:
            open_export(parse_nbd_address(address))
        assert caught.value.hint


def test_reads_on_many_threads_over_a_slow_server_overlap(tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(b"".join(bytes([number]) * MIB for number in range(8)))
    with (
        nbdkit(tmp_path, "--filter=delay", "file", tmp_path / "image", "rdelay=100ms") as address,
        closing(open_export(parse_nbd_address(address))) as source,
    ):
        started_s = time.monotonic()
        with ThreadPoolExecutor(2) as pool:
            halves = list(pool.map(lambda number: read(source, number * 4 * MIB, 4 * MIB), range(2)))
        assert time.monotonic() - started_s < 0.6  # eight reads one after another take 0.8
    assert b"".join(halves) == (tmp_path / "image").read_bytes()


def test_a_dirty_bitmap_is_found_exactly(tmp_path: Path) -> None:
    image = make_qcow2(tmp_path / "a.qcow2", "64M")
    qemu_io(image, "write -P 1 0 8M")
    subprocess.run(["qemu-img", "bitmap", "--add", image, "b1"], check=True)
    qemu_io(image, "write -P 2 1M 4k", "write -z 5M 64k", "discard 6M 64k")
    with qemu_nbd(tmp_path, image, "-B", "b1", kind="qcow2") as address:
        with closing(open_export(parse_nbd_address(address), bitmaps=["b1"])) as source:
            found = source.find_dirty("b1")
            assert found is not None
            assert found.tolist() == [[start, start + 64 * KIB] for start in (MIB, 5 * MIB, 6 * MIB)]
            assert source.extents().count_bytes(DATA) == 8 * MIB - 128 * KIB
        with closing(open_export(parse_nbd_address(address), bitmaps=["b2"])) as source:
            assert source.find_dirty("b2") is None
            assert source.extents().count_bytes(DATA) == 8 * MIB - 128 * KIB
