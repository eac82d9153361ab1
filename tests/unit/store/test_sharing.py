# SPDX-License-Identifier: Apache-2.0
"""Who may read the files of a store: as umask, setgid bit and group say, and never everybody."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deltaimg.errors import PermissionDenied
from deltaimg.store.interface import ANY_NAME
from deltaimg.store.local import LocalStore
from tests.support.components import requires_root

NAME = "packs/ab/" + "ab" * 32
GROUP = 20_001
ALICE, BOB, EVE = (30_001, GROUP), (30_002, GROUP), (30_003, 20_002)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may reach; those of pytest are its user's own."""
    with tempfile.TemporaryDirectory(prefix="deltaimg-test-") as folder:
        os.chmod(folder, 0o777)
        yield Path(folder)


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@contextmanager
def being(user: tuple[int, int]) -> Iterator[None]:
    """Be a user of one group for a while."""
    requires_root()
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(user[1])
    os.seteuid(user[0])
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


def modes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder.parent)): f"{path.stat().st_mode & 0o7777:o}"
        for path in [folder, *folder.rglob("*")]
    }


@pytest.mark.parametrize(
    ("mask", "folder_mode", "file_mode"),
    [(0o077, "700", "600"), (0o027, "750", "640"), (0o022, "750", "640"), (0o007, "770", "660"), (0, "770", "660")],
)
def test_modes_follow_the_umask_and_nothing_is_open_to_everybody(
    tmp_path: Path, mask: int, folder_mode: str, file_mode: str
) -> None:
    with umask(mask):
        store = LocalStore(str(tmp_path / "repo"))
        store.put(NAME, [b"x"])
        store.replace("verified", [b"x"])
        store.move("verified", "quarantine/verified")
    found = modes(tmp_path / "repo")
    assert {mode for name, mode in found.items() if (tmp_path / name).is_dir()} == {folder_mode}
    assert {mode for name, mode in found.items() if (tmp_path / name).is_file()} == {file_mode}


def test_folders_on_the_way_to_a_store_are_as_any_others(tmp_path: Path) -> None:
    with umask(0o022):
        LocalStore(str(tmp_path / "srv" / "backup" / "repo")).put("config", [b"x"])
    assert [(path.stat().st_mode & 0o777) for path in (tmp_path / "srv", tmp_path / "srv" / "backup")] == [0o755, 0o755]


def test_group_and_setgid_bit_of_the_folder_above_are_taken_over(tmp_path: Path) -> None:
    requires_root()
    os.chown(tmp_path, -1, GROUP)
    tmp_path.chmod(0o2770)
    with umask(0o007):
        LocalStore(str(tmp_path / "repo")).put(NAME, [b"x"])
    assert {path.stat().st_gid for path in tmp_path.rglob("*")} == {GROUP}
    assert set(modes(tmp_path / "repo").values()) == {"2770", "660"}


@pytest.mark.parametrize("is_there", [False, True])
def test_a_shared_store_is_open_to_its_group_whoever_writes_with_whatever_umask(
    open_folder: Path, is_there: bool
) -> None:
    requires_root()
    if is_there:
        (open_folder / "repo").mkdir(0o700)
    LocalStore(str(open_folder / "repo")).share(GROUP)
    with umask(0o077):
        for number, user in enumerate((ALICE, BOB, ALICE)):
            with being(user):
                store = LocalStore(str(open_folder / "repo"))
                store.put(f"snapshots/vm{number}/a", [b"x"])
                store.put(f"snapshots/vm0/{number}", [b"x"])
                store.replace("verified", [b"%d" % number])
                store.move("verified", f"quarantine/verified.{number}")
                store.put("locks/vm", [b"x"])
                store.delete("locks/vm")
    with being(BOB):
        store = LocalStore(str(open_folder / "repo"))
        store.delete("snapshots/vm0/0")
        assert store.get("snapshots/vm2/a") == b"x"
    found = modes(open_folder / "repo")
    assert {mode for name, mode in found.items() if (open_folder / name).is_dir()} == {"2770"}
    assert {mode for name, mode in found.items() if (open_folder / name).is_file()} == {"660"}
    assert {path.stat().st_gid for path in (open_folder / "repo").rglob("*")} == {GROUP}
    with being(EVE), pytest.raises(PermissionDenied, match=r"repo: permission denied$"):
        LocalStore(str(open_folder / "repo")).get("snapshots/vm2/a")


def test_who_is_not_of_the_group_cannot_share_with_it_and_leaves_nothing(open_folder: Path) -> None:
    requires_root()
    with being(EVE), pytest.raises(PermissionDenied):
        LocalStore(str(open_folder / "repo")).share(GROUP)
    assert os.listdir(open_folder) == []


def test_what_root_left_in_the_store_of_another_user_is_named_with_the_way_back(open_folder: Path) -> None:
    """A run as root has files made that the owner may not read; it was the store's own folder that was named."""
    repo = open_folder / "a repo"
    with being(ALICE):
        LocalStore(str(repo)).put("config", [b"x"])
    with umask(0o077):
        LocalStore(str(repo)).put(NAME, [b"y"])
    with being(ALICE):
        for prefix in ("", "packs/"):
            with pytest.raises(PermissionDenied, match=r"a repo/packs: permission denied$") as refused:
                list(LocalStore(str(repo)).list(prefix))
            assert f"chown -R --reference='{repo}' '{repo}'" in str(refused.value.hint)
        with pytest.raises(PermissionDenied, match=r"a repo/packs: permission denied$"):
            list(LocalStore(str(repo)).list_unfinished(ANY_NAME))
