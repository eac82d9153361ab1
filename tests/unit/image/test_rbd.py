# SPDX-License-Identifier: Apache-2.0
"""Images of Ceph, as far as no cluster is needed: addresses, what the environment names, errors. tests/ceph has the rest."""

from __future__ import annotations

import errno
from collections.abc import Iterator

import pytest

from deltaimg.engine.doctor.host import examine_host
from deltaimg.errors import ImageError, UsageError
from deltaimg.image.open_source import open_source
from deltaimg.image.open_target import open_target
from deltaimg.image.rbd import library
from deltaimg.image.rbd.address import is_rbd_address, parse_rbd_address
from deltaimg.image.rbd.cluster import Arguments, check, read_arguments
from deltaimg.image.rbd.library import RbdFailure, load_library


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rbd:vms/vm1", ("vms", "", "vm1", "")),
        ("rbd:vms/customer7/vm1", ("vms", "customer7", "vm1", "")),
        ("rbd:vms/vm 1:x@monday", ("vms", "", "vm 1:x", "monday")),
        ("rbd:vms/customer7/vm1@a@b", None),
        ("rbd:vm1", None),
        ("rbd:", None),
        ("rbd:vms/", None),
        ("rbd:/vm1", None),
        ("rbd:vms//vm1", None),
        ("rbd:a/b/c/d", None),
        ("rbd:vms/vm1@", None),
        ("rbd:vms/vm1@a/b", None),
        ("rbd:vms/vm\x001", None),
        ("rbd://vms/vm1", None),
    ],
)
def test_addresses(text: str, expected: tuple[str, str, str, str] | None) -> None:
    assert is_rbd_address(text)
    if expected is None:
        with pytest.raises(UsageError):
            parse_rbd_address(text)
        return
    found = parse_rbd_address(text)
    assert (found.pool, found.namespace, found.image, found.snapshot) == expected
    assert found.location == text
    assert parse_rbd_address(found.at("x").location).snapshot == "x"


def test_what_is_a_path() -> None:
    assert not any(is_rbd_address(path) for path in ("./rbd:vms/vm1", "/dev/rbd0", "rbd/vm1", "RBD:vms/vm1"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", Arguments()),
        ("--id backup", Arguments("client.backup")),
        ("--id=backup -m host1", Arguments("client.backup")),
        ("--keyring /k --user backup", Arguments("client.backup")),
        ("-n client.backup --conf=/etc/other.conf", Arguments("client.backup", "/etc/other.conf")),
        ("--name client.a --id b -c /c", Arguments("client.a", "/c")),
        ("--id", Arguments()),
    ],
)
def test_what_ceph_args_name(text: str, expected: Arguments) -> None:
    assert read_arguments(text) == expected


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (-errno.EPERM, "cannot be opened: Ceph does not allow it to this user"),
        (-errno.EACCES, "cannot be opened: Ceph does not allow it to this user"),
        (-errno.ETIMEDOUT, "cannot be opened: the cluster did not answer in time"),
        (-errno.EBUSY, "cannot be opened: Device or resource busy"),
    ],
)
def test_errors(status: int, message: str) -> None:
    with pytest.raises(RbdFailure) as failed:
        check(status, "cannot be opened")
    assert failed.value.problem == message
    assert check(7, "") == 7


@pytest.fixture
def without_library(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    load_library.cache_clear()
    monkeypatch.setattr(library, "LIBRARIES", ("librados.so.2", "libnothing.so.1"))
    yield
    load_library.cache_clear()


def test_without_librbd(without_library: None) -> None:
    for function in (open_source, lambda path: open_target(path, 4096)):
        with pytest.raises(ImageError, match="read and written by librbd, which is not installed") as failed:
            function("rbd:vms/vm1")
        assert failed.value.hint == "apt install librbd1 ceph-common"
    [found] = [each for each in examine_host(None) if each.name == "images of Ceph"]
    assert (found.is_good, found.hint) == (False, "apt install librbd1 ceph-common")
