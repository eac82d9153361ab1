# SPDX-License-Identifier: Apache-2.0
"""What a file that is replaced passes on, and what a new one gets."""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from deltaimg.image.file_target import FileTarget
from tests.support.components import as_ordinary_user, requires_root, skip_without

ACL = "system.posix_acl_access"
_MASK_AND_USER = (
    (0x01, 6, 0xFFFFFFFF),
    (0x02, 4, 12345),
    (0x04, 4, 0xFFFFFFFF),
    (0x10, 4, 0xFFFFFFFF),
    (0x20, 0, 0xFFFFFFFF),
)
"""An access list that lets user 12345 read, as `setfacl -m u:12345:r` makes it."""
READ_BY_OTHER = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in _MASK_AND_USER)


@pytest.fixture
def umask_027() -> Iterator[None]:
    before = os.umask(0o027)
    yield
    os.umask(before)


def replace(path: Path) -> FileTarget:
    target = FileTarget(str(path), 100, is_replacing=True, is_synced=True)
    target.write(0, memoryview(b"new"))
    assert stat.S_IMODE(os.fstat(target._descriptor).st_mode) == 0o600, "nobody reads it before it is complete"
    target.commit()
    assert path.read_bytes()[:3] == b"new"
    return target


def test_a_new_file_follows_the_umask(tmp_path: Path, umask_027: None) -> None:
    target = FileTarget(str(tmp_path / "image.raw"), 100, is_replacing=False, is_synced=False)
    target.commit()
    assert stat.S_IMODE((tmp_path / "image.raw").stat().st_mode) == 0o640


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o660, 0o2750])
def test_a_replaced_file_keeps_owner_group_and_mode(tmp_path: Path, umask_027: None, mode: int) -> None:
    requires_root()
    path = tmp_path / "image.raw"
    path.write_bytes(b"old")
    os.chown(path, 1234, 2345)
    path.chmod(mode)
    assert replace(path).warnings == []
    found = path.stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (1234, 2345, mode)


def test_a_replaced_file_keeps_extended_attributes_and_its_access_list(tmp_path: Path) -> None:
    path = tmp_path / "image.raw"
    path.write_bytes(b"old")
    try:
        os.setxattr(path, "user.note", b"kept")
        os.setxattr(path, ACL, READ_BY_OTHER)
    except OSError as error:
        skip_without("xattr", str(error))
    mode = path.stat().st_mode
    assert replace(path).warnings == []
    assert os.getxattr(path, "user.note") == b"kept"
    assert os.getxattr(path, ACL) == READ_BY_OTHER
    assert path.stat().st_mode == mode


def test_a_replaced_file_without_an_access_list_does_not_get_that_of_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "image.raw"
    path.write_bytes(b"old")
    path.chmod(0o600)
    try:
        os.setxattr(tmp_path, "system.posix_acl_default", READ_BY_OTHER)
    except OSError as error:
        skip_without("xattr", str(error))
    replace(path)
    with pytest.raises(OSError, match=os.strerror(errno.ENODATA)):
        os.getxattr(path, ACL)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_an_owner_that_cannot_be_kept_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    requires_root()
    monkeypatch.chdir(tmp_path)  # whose parents are closed to others
    path = Path("image.raw")
    path.write_bytes(b"old")
    os.chown(path, 1234, 2345)
    path.chmod(0o4666)
    tmp_path.chmod(0o777)
    with as_ordinary_user():
        warnings = replace(path).warnings
    assert len(warnings) == 1
    assert "owner 1234 and group 2345" in warnings[0]
    found = path.stat()
    assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (65534, 0o666), "set-user-ID goes with its owner only"
