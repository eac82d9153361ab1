# SPDX-License-Identifier: Apache-2.0
"""Guests of Xen and libvirt: found, paused, stored with their configuration, and restored to other places.

There is no hypervisor here: `xl` and `virsh` are scripts that print what the real ones did, with other paths in it. Their
disks, the file system that they are on, and all else is real.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from deltaimg.model import MIB
from tests.support.components import loop_file_system, requires_program
from tests.support.guests import FOLDER, install, make_virsh, make_xl, read_captured
from tests.support.killed import run_killed_at
from tests.support.program import fail, succeed

CONFIG = "name = 'web1'\n# who wrote this\ndisk = [ '{root},,xvda', '{data},,xvdb', '{root}.iso,,xvdc,cdrom' ]\n"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    fill(folder)
    return folder


@pytest.fixture
def xfs(tmp_path: Path) -> Iterator[Path]:
    with loop_file_system("xfs", tmp_path / "mnt", 320 * MIB) as made:
        fill(made.folder)
        yield made.folder


def fill(folder: Path) -> None:
    for name in ("root.raw", "data.raw"):
        (folder / name).write_bytes(os.urandom(300_000))


def install_xl(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, images: Path, state: str = "------") -> Path:
    """Return where the script writes what it is told."""
    listed = tmp_path / "listed"
    paths = {"/dev/vg/web1-root": images / "root.raw", "/dev/vg/web1-data": images / "data.raw"}
    listed.write_text(read_captured("xl-list.json", paths))
    install(monkeypatch, tmp_path / "bin", {"xl": make_xl(listed, tmp_path / "log", state), "virsh": "exit 1"})
    return tmp_path / "log"


def install_virsh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, images: Path, state: str = "running") -> Path:
    dumped = tmp_path / "dumped"
    paths = {"/dev/vg0/web1-root": images / "root.raw", "/srv/images/web1-data.raw": images / "data.raw"}
    dumped.write_text(read_captured("virsh-dumpxml.xml", {**paths, "protocol='rbd'": "protocol='iscsi'"}))
    scripts = {"xl": "exit 1", "virsh": make_virsh(dumped, tmp_path / "log", state)}
    install(monkeypatch, tmp_path / "bin", scripts)
    return tmp_path / "log"


EXCLUDED = ("--exclude-disk", "vdc", "--exclude-disk", "vde")


def test_a_guest_of_xen(repo: Path, xfs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = install_xl(monkeypatch, tmp_path, xfs)
    done = succeed("backup", "--guest", "web1", "--json", repo=repo).json
    assert log.read_text() == "xl pause web1\nxl unpause web1\n"
    assert [each["image"] for each in done["members"]] == ["web1.xvda", "web1.xvdb", "web1.config"]
    assert [each["freeze"]["method"] for each in done["members"][:2]] == ["reflink", "reflink"]
    assert done["left_out"] == [{"disk": "xvdc", "reason": "the same as xvda"}]
    assert done["spread_s"] == 0
    again = succeed("backup", "--guest", "web1", repo=repo)
    assert "left out: xvdc (the same as xvda)" in again.text
    config = succeed("restore", "--guest", "web1", "--config-only", repo=repo)
    assert config.text == (tmp_path / "listed").read_text()
    assert succeed("show", "web1", "--json", repo=repo).json["config"] == config.text
    assert "pdev_path" in succeed("show", "web1", repo=repo).text
    out = tmp_path / "out"
    out.mkdir()
    succeed("restore", "--guest", "web1", "--into", out, repo=repo)
    assert (out / "root.raw").read_bytes() == (xfs / "root.raw").read_bytes()
    assert (out / "data.raw").read_bytes() == (xfs / "data.raw").read_bytes()
    assert (out / "web1.config").read_text() == config.text.replace(str(xfs), str(out))
    everything = tmp_path / "everything"
    everything.mkdir()
    restored = succeed("restore", "--all", "--into", everything, "--json", repo=repo).json
    assert restored["configs"] == [{"group": "web1", "config": str(everything / "web1.config")}]
    assert sorted(each.name for each in everything.iterdir()) == ["data.raw", "root.raw", "web1.config"]
    assert (everything / "web1.config").read_text() == config.text.replace(str(xfs), str(everything))
    # Where the configuration is lost, the disks are not.
    max((repo / "snapshots" / "web1.config").iterdir()).write_bytes(b"damaged")
    assert "web1.config not restored" in fail(28, "restore", "--all", "--into", everything, "--force", repo=repo)
    assert (everything / "root.raw").read_bytes() == (xfs / "root.raw").read_bytes()


def test_a_guest_of_libvirt(repo: Path, xfs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = install_virsh(monkeypatch, tmp_path, xfs)
    said = fail(87, "backup", "--guest", "web1", repo=repo)
    assert "its disk vde is of type network" in said
    done = succeed("backup", "--guest", "web1", *EXCLUDED, "--json", repo=repo).json
    assert log.read_text() == "virsh suspend web1\nvirsh resume web1\n"
    assert [each["image"] for each in done["members"]] == ["web1.vda", "web1.vdb", "web1.config"]
    moved = ("--map", f"{xfs}/root.raw={tmp_path}/a.raw", "--map", f"{xfs}={tmp_path}")
    succeed("restore", "--guest", "web1", *moved, repo=repo)
    assert (tmp_path / "a.raw").read_bytes() == (xfs / "root.raw").read_bytes()
    assert (tmp_path / "data.raw").read_bytes() == (xfs / "data.raw").read_bytes()
    succeed("restore", "--guest", "web1", "--config-only", tmp_path / "new.xml", *moved, repo=repo)
    before = (tmp_path / "dumped").read_text()
    after = before.replace(f"{xfs}/root.raw", f"{tmp_path}/a.raw").replace(f"{xfs}/data.raw", f"{tmp_path}/data.raw")
    assert (tmp_path / "new.xml").read_text() == after
    fail(13, "restore", "--guest", "web1", "--config-only", tmp_path / "new.xml", repo=repo)


def test_a_disk_is_read_by_the_format_that_the_configuration_names(
    repo: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requires_program("qemu-nbd")
    flat, disk = images / "root.raw", images / "data.raw"
    flat.write_bytes(os.urandom(1 << 20))
    subprocess.run([requires_program("qemu-img"), "convert", "-O", "qcow2", flat, disk], check=True)
    install(monkeypatch, tmp_path / "bin", {"xl": "exit 1", "virsh": "exit 1"})
    path = tmp_path / "web1.cfg"
    path.write_text(f"name = 'web1'\ndisk = [ '{disk},qcow2,xvda' ]\n")
    succeed("backup", "--guest", "web1", "--guest-config", path, repo=repo)
    succeed("restore", "web1.xvda", tmp_path / "restored", repo=repo)
    assert (tmp_path / "restored").read_bytes() == flat.read_bytes()


@pytest.mark.parametrize(("hypervisor", "state"), [("xl", "--p---"), ("virsh", "shut off"), ("virsh", "paused")])
def test_a_guest_that_is_stopped_already_is_not_started(
    repo: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hypervisor: str, state: str
) -> None:
    install_it = install_xl if hypervisor == "xl" else install_virsh
    log = install_it(monkeypatch, tmp_path, images, state)
    excluded = () if hypervisor == "xl" else EXCLUDED
    done = succeed("backup", "--guest", "web1", *excluded, "--json", repo=repo).json
    assert not log.exists()
    assert done["members"][0]["freeze"]["method"] == "none"


def test_a_guest_that_a_killed_backup_left_paused_is_resumed_by_the_next_and_no_other(
    repo: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = install_xl(monkeypatch, tmp_path, images)
    is_paused = tmp_path / "is-paused"
    xl = (tmp_path / "bin" / "xl").read_text().replace("#!/bin/sh\n", "")
    (tmp_path / "bin" / "xl").write_text(f"""#!/bin/sh
case "$*" in
"pause web1") touch '{is_paused}' ;;
"unpause web1") rm '{is_paused}' ;;
esac
[ "$*" != "list web1" ] || [ ! -e '{is_paused}' ] || exec sed 's/------/--p---/' '{FOLDER / "xl-list.txt"}'
{xl}""")
    backup, number, left = ("backup", "--guest", "web1", "-q"), 0, 0
    while run_killed_at(number, tmp_path / "hook", repo, *backup, with_children=True):
        log.unlink(missing_ok=True)
        was_paused = is_paused.exists()
        left += was_paused
        said = succeed(*backup, repo=repo).err
        assert ("guest web1 was left paused by a backup that died, and is resumed" in said) == was_paused
        assert log.read_text() == "xl unpause web1\n" * was_paused + "xl pause web1\nxl unpause web1\n"
        assert not is_paused.exists()
        number += 1
    assert left
    # Now it is paused by another.
    is_paused.touch()
    log.unlink()
    assert "guest web1 is paused, and stays so: 'xl unpause web1' resumes it" in succeed(*backup, repo=repo).err
    assert not log.exists()


def test_commands_of_the_user_take_the_place_of_a_pause(
    repo: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = install_xl(monkeypatch, tmp_path, images)
    own = ("--pre-freeze", f"echo mine >> {tmp_path}/own", "--post-freeze", f"echo done >> {tmp_path}/own")
    succeed("backup", "--guest", "web1", *own, repo=repo)
    assert not log.exists()
    assert (tmp_path / "own").read_text() == "mine\ndone\n"


def test_a_configuration_file(repo: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, tmp_path / "bin", {"xl": "exit 1", "virsh": "exit 1"})
    path = tmp_path / "web1.cfg"
    path.write_text(CONFIG.format(root=images / "root.raw", data=images / "data.raw"))
    done = succeed(
        "backup", "--guest", "web1", "--guest-config", path, "--exclude-disk", "xvdb", "--json", repo=repo
    ).json
    assert [each["image"] for each in done["members"]] == ["web1.xvda", "web1.config"]
    planned = succeed("backup", "--guest", "web1", "--guest-config", path, "-n", "--json", repo=repo).json
    assert [each["image"] for each in planned["members"]] == ["web1.xvda", "web1.xvdb", "web1.config"]
    config = succeed("restore", "--guest", "web1", "--config-only", "--map", f"{images}=/dev/vg9", repo=repo).text
    assert config == path.read_text().replace(f"{images}/root.raw,", "/dev/vg9/root.raw,")
    path.write_text("name = 'web1'\n" + "# longer, then shorter\n" * 100)
    assert "has no disk" in fail(87, "backup", "--guest", "web1", "--guest-config", path, repo=repo)


def test_a_configuration_that_shrinks_is_stored(
    repo: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, tmp_path / "bin", {"xl": "exit 1", "virsh": "exit 1"})
    path = tmp_path / "web1.cfg"
    text = CONFIG.format(root=images / "root.raw", data=images / "data.raw")
    for content in (text + "# more\n" * 10_000, text):
        path.write_text(content)
        run = succeed("backup", "--guest", "web1", "--guest-config", path, repo=repo)
        assert "fewer than" not in run.err
        assert succeed("restore", "--guest", "web1", "--config-only", repo=repo).text == content


def test_guests_that_cannot_be_found(repo: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_xl(monkeypatch, tmp_path, images)
    assert "neither to xl nor to virsh" in fail(87, "backup", "--guest", "web2", repo=repo)
    assert "cannot be read" in fail(87, "backup", "--guest", "web1", "--guest-config", tmp_path / "none", repo=repo)
    (tmp_path / "odd.cfg").write_text("name = open('/etc/passwd')")
    assert "line 1" in fail(87, "backup", "--guest", "web1", "--guest-config", tmp_path / "odd.cfg", repo=repo)
    (images / "data.raw").unlink()
    assert "data.raw: cannot be read" in fail(10, "backup", "--guest", "web1", repo=repo)


def test_options_that_do_not_fit(repo: Path, images: Path, tmp_path: Path) -> None:
    disk = f"a={images / 'root.raw'}"
    fail(2, "backup", "--guest", "web1", "--group", "web1", repo=repo)
    fail(2, "backup", "--guest", "web1", disk, repo=repo)
    fail(2, "backup", "--group", "web1", disk, "--exclude-disk", "a", repo=repo)
    succeed("backup", "--group", "web1", disk, repo=repo)
    assert "no configuration" in fail(2, "restore", "--guest", "web1", "--config-only", repo=repo)
    assert "nothing says where" in fail(2, "restore", "--guest", "web1", "--map", "/x=/y", repo=repo)
    assert "is not a path" in fail(2, "restore", "--guest", "web1", "--map", "x", repo=repo)
    fail(2, "restore", "--guest", "web1", "--config-only", "--into", tmp_path, repo=repo)
    fail(2, "restore", "--into", tmp_path, repo=repo)
