# SPDX-License-Identifier: Apache-2.0
"""What file systems do to names: a name that cannot be kept, or kept apart from another, is refused before it is used."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from deltaimg.errors import NameNotKept, PermissionDenied
from deltaimg.store.file_names import find_folded
from deltaimg.store.local import LocalStore
from tests.support.file_systems import (
    FoldingPort,
    drops_dots,
    forbids,
    ignores_case,
    keeps_short_names,
    mounted,
    normalises,
)

COMPOSED, DECOMPOSED = "B\u00fcro", "Bu\u0308ro"


@pytest.mark.parametrize(
    ("port", "first", "second"),
    [
        (ignores_case(), "VM1", "vm1"),
        (ignores_case(), "vm1", "VM1"),
        (ignores_case(), "STRASSE", "stra\u00dfe"),
        (normalises(), DECOMPOSED, COMPOSED),
        (drops_dots(), "vm1", "vm1."),
        (drops_dots(), "vm1", "vm1. ."),
    ],
)
def test_a_name_that_is_taken_for_another_is_refused_and_costs_nothing(
    tmp_path: Path, port: FoldingPort, first: str, second: str
) -> None:
    store = LocalStore(str(tmp_path), port)
    store.put(f"locks/{first}", [b"1"])
    store.put(f"snapshots/{first}/a", [b"2"])
    for act in (
        lambda: store.put(f"locks/{second}", [b"3"]),
        lambda: store.put(f"snapshots/{second}/b", [b"4"]),
        lambda: LocalStore(str(tmp_path), port).make_folder(f"snapshots/{second}"),
    ):
        with pytest.raises(NameNotKept, match=r"takes this name for '"):
            act()
    assert list(store.list(f"snapshots/{second}/")) == []
    assert [each.name for each in store.list("")] == [f"locks/{first}", f"snapshots/{first}/a"]
    assert list(store.list_unfinished()) == []


@pytest.mark.parametrize(
    ("port", "name"),
    [(normalises(), COMPOSED), (drops_dots(), "vm1."), (drops_dots(), "vm1 ")],
)
def test_a_name_that_is_kept_as_another_is_refused_and_leaves_nothing(
    tmp_path: Path, port: FoldingPort, name: str
) -> None:
    store = LocalStore(str(tmp_path), port)
    for act in (lambda: store.put(f"locks/{name}", [b"1"]), lambda: store.make_folder(f"snapshots/{name}")):
        with pytest.raises(NameNotKept):
            act()
    assert list(store.list("")) == []


@pytest.mark.parametrize(
    ("port", "name"),
    [
        *((forbids(':?"<>|*', number), "vm:1") for number in (errno.EINVAL, errno.EILSEQ, errno.ENOENT, errno.EPERM)),
        (keeps_short_names(143), "v" * 144),
    ],
)
def test_a_name_that_cannot_be_kept_is_refused_as_such(tmp_path: Path, port: FoldingPort, name: str) -> None:
    store = LocalStore(str(tmp_path), port)
    store.put("locks/vm1", [b"1"])
    with pytest.raises(NameNotKept, match=r"cannot keep this name") as caught:
        store.put(f"locks/{name}", [b"2"])
    assert not caught.value.retryable
    assert caught.value.hint is not None
    assert [each.name for each in store.list("")] == ["locks/vm1"]


def test_a_refusal_that_is_not_for_the_name_is_not_blamed_on_it(tmp_path: Path) -> None:
    port = FoldingPort(refuses=lambda name: errno.EPERM if name == "vm1" else None)
    with pytest.raises(PermissionDenied):
        LocalStore(str(tmp_path), port).put("locks/vm1", [b"1"])


def test_names_that_only_look_alike_are_kept_apart(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    names = ["VM1", "vm1", COMPOSED, DECOMPOSED, "vm1.", "vm:1", "straße", "STRASSE"]
    for name in names:
        store.put(f"snapshots/{name}/a", [name.encode()])
        store.put(f"locks/{name}", [name.encode()])
    assert {each.name for each in store.list("locks/")} == {f"locks/{name}" for name in names}
    for name in names:
        assert store.get(f"snapshots/{name}/a") == name.encode()
        assert [each.name for each in store.list(f"snapshots/{name}/")] == [f"snapshots/{name}/a"]


def test_a_listing_that_lags_behind_is_no_reason_to_refuse() -> None:
    assert find_folded("vm1", ["other"]) is None
    assert find_folded("vm1", ["VM1", "vm1"]) is None
    assert find_folded("vm1", ["VM1"]) == "VM1"


@pytest.mark.parametrize("kind", ["exfat", "vfat"])
def test_on_a_real_file_system_that_ignores_case(tmp_path: Path, kind: str) -> None:
    with mounted(kind, tmp_path / "mount") as folder:
        store = LocalStore(str(folder / "repo"))
        store.put("locks/VM1", [b"1"])
        store.put("snapshots/VM1/a", [b"2"])
        for act in (lambda: store.put("locks/vm1", [b"3"]), lambda: store.make_folder("snapshots/vm1")):
            with pytest.raises(NameNotKept, match=r"takes this name for 'VM1'"):
                act()
        for name in ("vm:1", "what?", "x" * 256):
            with pytest.raises(NameNotKept, match=r"cannot keep this name"):
                store.put(f"locks/{name}", [b"4"])
        assert [each.name for each in store.list("")] == ["locks/VM1", "snapshots/VM1/a"]
        assert list(store.list("snapshots/vm1/")) == []


def test_on_ntfs_as_windows_would_have_it(tmp_path: Path) -> None:
    with mounted("ntfs", tmp_path / "mount") as folder:
        store = LocalStore(str(folder / "repo"))
        store.put("locks/vm1", [b"1"])
        for name in ("vm:1", "what?", "vm1."):
            with pytest.raises(NameNotKept, match=r"cannot keep this name"):
                store.put(f"locks/{name}", [b"2"])
        assert [each.name for each in store.list("")] == ["locks/vm1"]


def test_names_are_utf8_whatever_the_locale_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under Latin-1 Python took the two bytes of `ü` for two characters, and a good snapshot for a damaged one."""
    LocalStore(str(tmp_path)).put(f"snapshots/{COMPOSED}/a", [b"1"])
    monkeypatch.setattr(os, "fsencode", lambda name: name.encode("latin-1", "surrogateescape"))
    monkeypatch.setattr(os, "fsdecode", lambda name: name.decode("latin-1", "surrogateescape"))
    from deltaimg.store.file_names import to_file_name, to_name

    assert to_file_name(COMPOSED) == "B\u00c3\u00bcro"
    assert to_name(to_file_name(COMPOSED)) == COMPOSED
