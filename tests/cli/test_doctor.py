# SPDX-License-Identifier: Apache-2.0
"""What is said of hosts, images and repositories, and that looking changes nothing."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from deltaimg.model import MIB
from tests.support.components import loop_file_system
from tests.support.guests import install, make_virsh, make_xl, read_captured
from tests.support.live_qemu import live_qemu
from tests.support.nbd import make_filled_qcow2, make_qcow2, serving
from tests.support.program import fail, read_tree, succeed


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "vm1.raw"
    path.write_bytes(os.urandom(100_000))
    return path


def test_a_host_is_described(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, tmp_path / "bin", {"xl": "exit 1"})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    found = {each["name"]: each for each in succeed("doctor", "--json").json["host"]}
    assert found["guests of Xen"] == {"name": "guests of Xen", "is_good": True, "detail": "xl", "hint": ""}
    assert found["kernel"]["is_good"]
    assert str(tmp_path) in found["cache"]["detail"]
    extras = [each for each in found.values() if each["name"].startswith("deltaimg[") and not each["is_good"]]
    assert all(each["hint"] == f"{sys.executable} -m pip install '{each['name']}'" for each in extras)
    told = succeed("doctor").text.replace("\n", " ")
    assert all(each["name"] in told for each in extras)
    monkeypatch.setenv("PATH", "/nonexistent")
    said = succeed("doctor")
    assert "xl not installed" in said.text
    assert "GiB free" in said.text


def test_an_image_on_a_file_system_with_reflinks(tmp_path: Path, repo: Path) -> None:
    with loop_file_system("xfs", tmp_path / "mnt", 320 * MIB) as made:
        image = made.folder / "vm1.raw"
        image.write_bytes(os.urandom(100_000))
        outlook = succeed("doctor", image, "--json").json["images"][0]
        assert (outlook["freeze"], outlook["track"], outlook["image"]) == ("reflink", "reflink", None)
        succeed("backup", image, "-i", "vm1", repo=repo)
        last = succeed("doctor", image, "--json", repo=repo).json["images"][0]["last"]
        assert last["why_full"] == "it was the first"
        assert "no tracking was asked for" in last["why_scanned"]
        for _ in range(2):
            succeed("backup", image, "-i", "vm1", "--track", "auto", repo=repo)
        outlook = succeed("doctor", "vm1", "--json", repo=repo).json["images"][0]
        assert outlook["image"] == "vm1"
        assert (outlook["last"]["why_full"], outlook["last"]["why_scanned"]) == (None, None)
        assert [each.name for each in made.folder.iterdir() if not each.name.startswith(".")] == ["vm1.raw"]


def test_a_file_that_a_running_qemu_has_open_is_said_to_be(tmp_path: Path) -> None:
    path, where = make_qcow2(tmp_path / "vm.qcow2", "8M"), tmp_path / "rw.sock"
    outlook = succeed("doctor", path, "--json").json["images"][0]
    assert (outlook["writer"], outlook["track"]) == (None, "bitmap")
    with serving(where, "qemu-nbd", "-t", "-f", "qcow2", "-k", where, path):
        outlook = succeed("doctor", path, "--json").json["images"][0]
        assert "locked by another program" in outlook["writer"]
        assert outlook["track"] == "scan"
        assert "monitor of its qemu" in outlook["track_ways"][0]["obstacle"]


def test_why_nothing_better_would_be_used(image: Path, repo: Path) -> None:
    before = read_tree(image.parent)
    outlook = succeed("doctor", image, "--json", repo=repo).json["images"][0]
    assert (outlook["freeze"], outlook["track"]) == ("none", "scan")
    assert {each["name"]: bool(each["obstacle"]) for each in outlook["freeze_ways"]} == {"reflink": True, "btrfs": True}
    assert "is no qcow2 file" in outlook["track_ways"][0]["obstacle"]
    text = succeed("doctor", image, repo=repo).text
    assert "not reflink" in text
    assert "reachable on this host" in text
    assert read_tree(image.parent) == before
    fail(10, "doctor", image.parent / "none")


def test_all_images_of_a_repository(image: Path, repo: Path) -> None:
    other = image.with_name("vm2.raw")
    other.write_bytes(os.urandom(5000))
    for path in (image, other):
        succeed("backup", path, "-i", path.stem, "--track", "auto", repo=repo)
    other.unlink()
    told = succeed("doctor", "--json", repo=repo).json
    assert [each["image"] for each in told["images"]] == ["vm1"]
    assert told["images"][0]["last"]["why_scanned"]
    assert {each["name"]: each["is_good"] for each in told["repository"]}["locks"]


def test_a_repository_that_cannot_be_opened_is_a_line(image: Path, tmp_path: Path) -> None:
    run = succeed("doctor", image, "-r", tmp_path / "none")
    assert "the repository cannot be used" in run.err
    assert "--freeze auto" in run.text
    assert "none" in succeed("doctor", "-r", tmp_path / "none", "--json").json["repository_problem"]


def test_an_encrypted_repository_without_a_key_is_described(image: Path, tmp_path: Path) -> None:
    sealed = tmp_path / "sealed"
    succeed("init", "-r", sealed, "--encryption", "keyfile", "--key-file", tmp_path / "key")
    told = succeed("doctor", image, "--json", repo=sealed).json
    assert {each["name"]: each["detail"] for each in told["repository"]}["encryption"] == "aes-256-gcm"
    assert told["images"][0]["last"] is None


@pytest.mark.parametrize("hypervisor", ["xl", "virsh"])
def test_the_disks_of_a_guest(image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hypervisor: str) -> None:
    printed, log = tmp_path / "printed", tmp_path / "log"
    if hypervisor == "xl":
        printed.write_text(read_captured("xl-list.json", {"/dev/vg/web1-data": image}))
        install(monkeypatch, tmp_path / "bin", {"xl": make_xl(printed, log), "virsh": "exit 1"})
    else:
        printed.write_text(read_captured("virsh-dumpxml.xml", {"/dev/vg0/web1-root": image, "='rbd'": "='iscsi'"}))
        install(monkeypatch, tmp_path / "bin", {"xl": "exit 1", "virsh": make_virsh(printed, log)})
    told = succeed("doctor", "web1", "--json").json
    assert [each["path"] for each in told["images"]] == [str(image)]
    reasons = {each["name"]: each["reason"] for each in told["not_examined"]}
    if hypervisor == "xl":
        assert "cannot be read" in reasons["/dev/vg/web1-root"]
    else:
        assert "of type network" in reasons["vde"]
        assert "removable" in reasons["hda"]
    assert not log.exists()
    assert "is known neither" in fail(87, "doctor", "web2")


def test_a_name_of_nothing_is_called_that(repo: Path) -> None:
    """A file in another folder was looked for among guests alone, and the error spoke of hypervisors."""
    said = fail(87, "doctor", "vm9.raw", repo=repo)
    assert f"vm9.raw: is no file here, no image in {repo}; as a guest it " in said
    assert "vm9.raw: is no file here; as a guest it " in fail(87, "doctor", "vm9.raw")


def test_a_disk_of_a_running_qemu(repo: Path, tmp_path: Path) -> None:
    with live_qemu(tmp_path, make_filled_qcow2(tmp_path / "vm1.qcow2", 8, 2)) as live:
        for number in range(2):
            outlook = succeed("doctor", live.address, "--json", repo=repo).json["images"][0]
            assert (outlook["freeze"], outlook["track"], outlook["size_bytes"]) == ("qmp", "bitmap", 8 * MIB)
            assert outlook["image"] == ("vm1" if number else None)
            succeed("backup", live.address, "-i", "vm1", "--track", "auto", repo=repo)
        assert succeed("doctor", "vm1", "--json", repo=repo).json["images"][0]["path"] == live.address
        assert "a disk of a running qemu" in succeed("doctor", live.address).text
        outlook = succeed("doctor", live.address.replace("///disk", "///other"), "--json").json["images"][0]
        assert "has no disk 'other'" in outlook["freeze_ways"][0]["obstacle"]
        assert (live.find_traces(), len(live.bitmaps())) == ([], 1)
    said = succeed("doctor", live.address, repo=repo).text
    assert "not qmp" in said
    assert "cannot be connected to" in said
    fail(2, "doctor", "qmp+unix:///disk")
