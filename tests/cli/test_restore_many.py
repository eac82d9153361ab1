# SPDX-License-Identifier: Apache-2.0
"""Recovery: the newest snapshots of all images are restored into one folder by one command."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from deltaimg.model import KIB, MIB
from tests.support.components import loop_file_system, requires_program
from tests.support.images import make_mixed_image
from tests.support.nbd import make_qcow2
from tests.support.program import command, deltaimg, environment, fail, read_tree, succeed


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def make_image(path: Path, size_bytes: int = 300_000) -> Path:
    """Write an image of random content; return its path."""
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_bytes(os.urandom(size_bytes))
    return path


def back_up(repo: Path, name: str, path: Path, *options: object) -> bytes:
    """Back up an image, and return its content."""
    succeed("backup", path, "--image", name, "-q", *options, repo=repo)
    return path.read_bytes()


def back_up_group(repo: Path, *paths: Path) -> list[bytes]:
    """Back up images as group web1, as disks of their names without what follows the dot; return their content."""
    succeed("backup", "--group", "web1", *(f"{path.stem}={path}" for path in paths), "-q", repo=repo)
    return [path.read_bytes() for path in paths]


def find_manifests(repo: Path, image: str) -> list[Path]:
    """Return the manifests of an image, oldest first."""
    return sorted((repo / "snapshots" / image).iterdir())


def damage_newest_pack(repo: Path) -> None:
    """Change a byte in every record of the pack that was written last."""
    pack = max(
        (path for path in (repo / "packs").rglob("*") if path.is_file()), key=lambda path: path.stat().st_mtime_ns
    )
    content = bytearray(pack.read_bytes())
    content[4000 : len(content) - 4000 : 4000] = bytes(x ^ 1 for x in content[4000 : len(content) - 4000 : 4000])
    pack.write_bytes(content)


def test_every_image_is_restored_as_it_was_last(repo: Path, tmp_path: Path, out: Path) -> None:
    mixed = tmp_path / "vm1.raw"
    make_mixed_image(2_000_001, seed=4).save(mixed)
    root, data = make_image(tmp_path / "root.raw"), make_image(tmp_path / "data.raw")
    back_up(repo, "vm1", mixed)
    back_up_group(repo, root, data)
    with mixed.open("r+b") as file:
        file.write(b"newer")
    for path in (root, data):
        make_image(path)
    content = {"vm1.raw": back_up(repo, "vm1", mixed)}
    content |= dict(zip(("root.raw", "data.raw"), back_up_group(repo, root, data), strict=True))
    content["old"] = make_image(tmp_path / "old").read_bytes()
    succeed("backup", "-", "--image", "old", "-q", repo=repo, stdin=content["old"])

    done = succeed("restore", "--all", "--into", out, "--json", repo=repo).json
    assert read_tree(out) == content
    assert [(each["image"], Path(each["target"]).name) for each in done["members"]] == [
        ("old", "old"),
        ("vm1", "vm1.raw"),
        ("web1.data", "data.raw"),
        ("web1.root", "root.raw"),
    ]
    assert (done["failed"], done["configs"]) == ([], [])
    assert all(each["damage"] == [] for each in done["members"])
    # Sparse, as any restore.
    assert (out / "vm1.raw").stat().st_blocks * 512 <= mixed.stat().st_blocks * 512 + 64 * KIB


def test_one_line_for_each_image_and_one_for_all(repo: Path, tmp_path: Path, out: Path) -> None:
    for name in ("a", "b"):
        back_up(repo, name, make_image(tmp_path / f"{name}.raw"))
    run = succeed("restore", "--all", "--into", out, repo=repo)
    first, second, last = run.text.splitlines()
    assert first.startswith("a@")
    assert f"restored to {out / 'b.raw'} and verified" in second
    assert last == "2 images restored and verified"
    assert "restoring 2 images: 0 B of 586 KiB" in run.err


def test_some_images_are_named(repo: Path, tmp_path: Path, out: Path) -> None:
    for name in ("a", "b", "web1.else", "web2"):
        back_up(repo, name, make_image(tmp_path / f"{name}.raw"))
    back_up_group(repo, make_image(tmp_path / "root.raw"), make_image(tmp_path / "data.raw"))
    for words, names in (
        (("b",), ["b.raw"]),
        (("web1",), ["data.raw", "root.raw"]),
        (("web1.data",), ["data.raw", "root.raw"]),
        (("web1", "a"), ["a.raw", "data.raw", "root.raw"]),
        (("web1.else", "web2"), ["web1.else.raw", "web2.raw"]),
    ):
        named = [word for name in words for word in ("--image", name)]
        succeed("restore", *named, "--into", out, repo=repo)
        assert sorted(each.name for each in out.iterdir()) == names
        for each in out.iterdir():
            each.unlink()
    for name in ("web", "c"):
        assert f"no snapshot matches '{name}'" in fail(
            21, "restore", "--image", "a", "--image", name, "--into", out, repo=repo
        )
    assert "has /" in fail(2, "restore", "--image", "a/b", "--into", out, repo=repo)
    assert list(out.iterdir()) == []


# -- names -------------------------------------------------------------------------------------------------------------


def test_names_that_clash_are_those_of_the_images(repo: Path, tmp_path: Path, out: Path) -> None:
    content = {
        "vm1": back_up(repo, "vm1", make_image(tmp_path / "a" / "disk.raw")),
        "vm2": back_up(repo, "vm2", make_image(tmp_path / "b" / "disk.raw")),
        # Which this file is called like, so that its own name is no way out.
        "vm3": back_up(repo, "vm3", make_image(tmp_path / "c" / "vm2")),
        # Some file systems cannot tell these apart.
        "vm4": back_up(repo, "vm4", make_image(tmp_path / "d" / "Data.raw")),
        "vm5": back_up(repo, "vm5", make_image(tmp_path / "e" / "data.raw")),
        "own.raw": back_up(repo, "vm6", make_image(tmp_path / "f" / "own.raw")),
    }
    succeed("restore", "--all", "--into", out, repo=repo)
    assert read_tree(out) == content


def test_names_that_are_none_of_a_file_are_those_of_the_images(repo: Path, tmp_path: Path, out: Path) -> None:
    """What was piped in has no name, and a repository decides on no hidden file."""
    path = make_image(tmp_path / ".profile")
    content = {"hidden": back_up(repo, "hidden", path)}
    succeed("backup", "--stdin-from-command", f"/bin/cat {path}", "--image", "piped", "-q", repo=repo)
    odd = make_image(tmp_path / "new\nline")
    content |= {"piped": path.read_bytes(), "odd": back_up(repo, "odd", odd)}
    undecodable = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.raw"))
    content["latin"] = back_up(repo, "latin", make_image(undecodable))
    succeed("restore", "--all", "--into", out, repo=repo)
    assert read_tree(out) == content


def test_what_was_in_a_qcow2_file_is_called_what_it_is(repo: Path, tmp_path: Path, out: Path) -> None:
    requires_program("qemu-img")
    requires_program("qemu-nbd")
    made = make_qcow2(tmp_path / "vm1.qcow2", "1M")
    succeed("backup", made, "--image", "vm1", "-q", repo=repo)
    succeed("backup", made, "--image", "vm2", "--raw", "-q", repo=repo)
    succeed("restore", "--all", "--into", out, repo=repo)
    assert sorted(each.name for each in out.iterdir()) == ["vm1.qcow2", "vm1.raw"]
    assert (out / "vm1.qcow2").read_bytes() == made.read_bytes()
    succeed("verify", "vm1", "--against", out / "vm1.raw", repo=repo)


def test_images_go_where_their_folders_have_moved(repo: Path, tmp_path: Path) -> None:
    paths = [make_image(tmp_path / "srv" / "a" / "disk.raw"), make_image(tmp_path / "srv" / "b" / "disk.raw")]
    content = [back_up(repo, name, path) for name, path in zip(("vm1", "vm2"), paths, strict=True)]
    for folder in ("a", "b"):
        (tmp_path / "new" / folder).mkdir(parents=True)
    succeed("restore", "--all", "--map", f"{tmp_path}/srv={tmp_path}/new", repo=repo)
    assert [(tmp_path / "new" / name / "disk.raw").read_bytes() for name in ("a", "b")] == content
    both = ("--map", f"{paths[0]}={tmp_path}/x", "--map", f"{paths[1]}={tmp_path}/out/../x")
    (tmp_path / "out").mkdir()
    assert "would both be restored to" in fail(2, "restore", "--all", *both, repo=repo)


def test_images_go_onto_devices_of_their_names(repo: Path, tmp_path: Path, make_loop) -> None:
    content = back_up(repo, "vm1", make_image(tmp_path / "vm1.raw", 512 * KIB))
    device = make_loop(make_image(tmp_path / "device", MIB))
    moved = ("--map", f"{tmp_path / 'vm1.raw'}={device}")
    assert "is a block device" in fail(13, "restore", "--all", *moved, repo=repo)
    succeed("restore", "--all", *moved, "--force", repo=repo)
    assert Path(device).read_bytes()[: 512 * KIB] == content
    back_up(repo, "vm2", make_image(tmp_path / "vm2.raw"))
    said = fail(10, "restore", "--all", "--into", "/dev", "--force", repo=repo)
    assert "/dev/vm1.raw: is not there, and vm1@" in said
    assert "nor are others: vm2.raw" in said


# -- refusals ----------------------------------------------------------------------------------------------------------


def test_nothing_is_written_where_one_file_exists(repo: Path, tmp_path: Path, out: Path) -> None:
    content = {f"{name}.raw": back_up(repo, name, make_image(tmp_path / f"{name}.raw")) for name in ("a", "b", "c")}
    (out / "c.raw").write_bytes(b"mine")
    assert "c.raw: exists" in fail(13, "restore", "--all", "--into", out, repo=repo)
    assert read_tree(out) == {"c.raw": b"mine"}
    succeed("restore", "--all", "--into", out, "--force", repo=repo)
    assert read_tree(out) == content


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--all",), "nothing says where --all restores to"),
        (("--image", "a"), "nothing says where --image restores to"),
        (("--all", "a"), "--all and SNAPSHOT"),
        (("--all", "--image", "a", "--into", "{out}"), "--all and --image"),
        (("--all", "--guest", "a", "--into", "{out}"), "--all and --guest"),
        (("--all", "--config-only", "--into", "{out}"), "--all and --config-only"),
        (("--all", "--into", "{out}/none"), "is not a folder"),
        (("--all", "--map", "/x=/y"), "nothing says where"),
    ],
)
def test_words_that_do_not_fit(repo: Path, tmp_path: Path, out: Path, words: tuple[str, ...], said: str) -> None:
    back_up(repo, "a", make_image(tmp_path / "a.raw"))
    assert said in fail(2, "restore", *(word.format(out=out) for word in words), repo=repo)


def test_an_empty_repository_is_no_success(repo: Path, out: Path) -> None:
    assert "no snapshot matches 'latest'" in fail(21, "restore", "--all", "--into", out, repo=repo)


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_what_cannot_fit_is_refused_before_anything_is_written(repo: Path, tmp_path: Path, kind: str) -> None:
    """Each of the two would fit; where one replaces another, the room of that one counts."""
    size_bytes = 320 * MIB if kind == "xfs" else 64 * MIB
    paths = [make_image(tmp_path / f"{name}.raw", size_bytes * 9 // 16) for name in ("a", "b")]
    for path in paths:
        back_up(repo, path.stem, path)
    with loop_file_system(kind, tmp_path / "mnt", size_bytes) as made:
        into = made.folder / "into"
        into.mkdir()
        said = fail(14, "restore", "--all", "--into", into, repo=repo)
        assert f"{2 * paths[0].stat().st_size} bytes will be written, and " in said
        assert "nothing was written" in said
        assert list(into.iterdir()) == []
        succeed("restore", "--image", "a", "--into", into, repo=repo)
        assert (into / "a.raw").read_bytes() == paths[0].read_bytes()


def test_what_replaces_files_one_by_one_fits_where_two_copies_of_all_do_not(repo: Path, tmp_path: Path) -> None:
    paths = [make_image(tmp_path / f"{name}.raw", 12 * MIB) for name in ("a", "b", "c")]
    for path in paths:
        back_up(repo, path.stem, path)
    with loop_file_system("ext4", tmp_path / "mnt", 64 * MIB) as made:
        into = made.folder / "into"
        into.mkdir()
        succeed("restore", "--all", "--into", into, repo=repo)
        succeed("restore", "--all", "--into", into, "--force", repo=repo)
        assert read_tree(into) == {path.name: path.read_bytes() for path in paths}


def test_a_file_system_that_may_compress_is_warned_of_and_the_rest_restored(
    repo: Path, tmp_path: Path, make_tmpfs
) -> None:
    big, small = make_image(tmp_path / "a.raw", 6 * MIB), make_image(tmp_path / "b.raw", 64 * KIB)
    for path in (big, small):
        back_up(repo, path.stem, path)
    into = make_tmpfs(4 * MIB)
    run = deltaimg("restore", "--all", "--into", into, repo=repo)
    assert run.code == 28
    assert f"warning: {into}: {6 * MIB + 64 * KIB} bytes will be written, and " in run.err
    assert "a not restored: " in run.err
    assert "1 image restored and verified, 1 not restored as a whole" in run.text
    assert read_tree(into) == {"b.raw": small.read_bytes()}


def test_many_more_images_than_files_that_may_be_open(repo: Path, tmp_path: Path, out: Path) -> None:
    path = make_image(tmp_path / "vm.raw", 10_000)
    for number in range(60):
        back_up(repo, f"vm{number}", path)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, most))

    words = command("restore", "--all", "--into", out, "-q")
    subprocess.run(words, env=environment(repo), check=True, preexec_fn=limit)
    assert read_tree(out) == {f"vm{number}": path.read_bytes() for number in range(60)}


# -- damage ------------------------------------------------------------------------------------------------------------


def test_what_is_damaged_of_one_image_costs_no_other(repo: Path, tmp_path: Path, out: Path) -> None:
    content = {"a.raw": back_up(repo, "a", make_image(tmp_path / "a.raw"))}
    damaged = back_up(repo, "b", make_image(tmp_path / "b.raw"))
    damage_newest_pack(repo)
    content["c.raw"] = back_up(repo, "c", make_image(tmp_path / "c.raw"))
    run = deltaimg("restore", "--all", "--into", out, "--json", repo=repo)
    done, error = (json.loads(line) for line in run.out.splitlines())
    assert run.code == error["exit_code"] == 28
    assert error["message"].startswith("b not restored: ")
    assert [each["image"] for each in done["members"]] == ["a", "c"]
    assert [each["image"] for each in done["failed"]] == ["b"]
    assert read_tree(out) == content
    run = deltaimg("restore", "--all", "--into", out, "--force", "--keep-going", "--json", repo=repo)
    done = json.loads(run.out.splitlines()[0])
    assert run.code == 28
    assert "b not restored: " in run.err
    lost = done["members"][1]["damage"]
    left = bytearray(damaged)
    for each in lost:
        left[each["start"] : each["end"]] = bytes(each["end"] - each["start"])
    assert lost
    assert read_tree(out) == {**content, "b.raw": bytes(left)}


def test_a_map_and_a_manifest_that_are_lost_cost_no_other(repo: Path, tmp_path: Path, out: Path) -> None:
    content = {"a.raw": back_up(repo, "a", make_image(tmp_path / "a.raw"))}
    maps = set((repo / "maps").rglob("*"))
    back_up(repo, "b", make_image(tmp_path / "b.raw"))
    [lost] = [each for each in set((repo / "maps").rglob("*")) - maps if each.is_file()]
    lost.unlink()
    back_up(repo, "c", make_image(tmp_path / "c.raw"))
    back_up(repo, "c", make_image(tmp_path / "c.raw"))
    find_manifests(repo, "c")[-1].write_bytes(b"damaged")
    run = deltaimg("restore", "--all", "--into", out, repo=repo)
    assert run.code == 28
    assert "c, and 1 more image not restored: snapshots/c/" in run.err
    assert "warning: b is not restored as a whole: snapshot b@" in run.err
    # Never an older snapshot in place of a damaged one.
    assert read_tree(out) == content


def test_where_nothing_can_be_read_each_image_is_named(repo: Path, tmp_path: Path, out: Path) -> None:
    for name in ("a", "b"):
        back_up(repo, name, make_image(tmp_path / f"{name}.raw"))
        find_manifests(repo, name)[-1].write_bytes(b"damaged")
    run = deltaimg("restore", "--all", "--into", out, "--json", repo=repo)
    assert run.code == 28
    done = json.loads(run.out.splitlines()[0])
    assert ([each["image"] for each in done["failed"]], done["members"]) == (["a", "b"], [])


# -- groups ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def disks(tmp_path: Path) -> list[Path]:
    return [make_image(tmp_path / "root.raw"), make_image(tmp_path / "data.raw")]


def test_an_incomplete_moment_of_a_group_gives_way_to_the_newest_complete_one(
    repo: Path, disks: list[Path], out: Path
) -> None:
    before = back_up_group(repo, *disks)
    for path in disks:
        make_image(path)
    back_up_group(repo, *disks)
    find_manifests(repo, "web1.data")[-1].unlink()
    for named in (("--all",), ("--image", "web1"), ("--image", "web1.root")):
        run = succeed("restore", *named, "--into", out, "--force", repo=repo)
        assert "is incomplete: there is no snapshot of web1.data of that moment; web1@" in run.err
        assert run.err.count("warning:") == 1
        assert read_tree(out) == {path.name: content for path, content in zip(disks, before, strict=True)}
    find_manifests(repo, "web1.data")[0].unlink()
    assert "web1 not restored: group web1@" in deltaimg("restore", "--all", "--into", out, "--force", repo=repo).err


@pytest.mark.parametrize("is_quarantined", [False, True])
def test_a_damaged_disk_of_a_group_costs_no_other_and_gives_way_to_no_older_one(
    repo: Path, disks: list[Path], tmp_path: Path, out: Path, *, is_quarantined: bool
) -> None:
    back_up_group(repo, *disks)
    for path in disks:
        make_image(path)
    content = {"root.raw": back_up_group(repo, *disks)[0]}
    content["vm1.raw"] = back_up(repo, "vm1", make_image(tmp_path / "vm1.raw"))
    find_manifests(repo, "web1.data")[-1].write_bytes(b"damaged")
    if is_quarantined:
        deltaimg("repair", repo=repo)
        assert len(find_manifests(repo, "web1.data")) == 1
    run = deltaimg("restore", "--all", "--into", out, "--json", repo=repo)
    assert run.code == 28
    assert "is taken instead" not in run.err
    done = json.loads(run.out.splitlines()[0])
    assert [each["image"] for each in done["failed"]] == ["web1.data"]
    assert read_tree(out) == content


def test_a_group_that_is_damaged_as_a_whole_gives_way_to_no_older_one(
    repo: Path, disks: list[Path], tmp_path: Path, out: Path
) -> None:
    back_up_group(repo, *disks)
    back_up_group(repo, *disks)
    content = {"vm1.raw": back_up(repo, "vm1", make_image(tmp_path / "vm1.raw"))}
    for image in ("web1.data", "web1.root"):
        find_manifests(repo, image)[-1].write_bytes(b"damaged")
    run = deltaimg("restore", "--all", "--into", out, "--json", repo=repo)
    assert run.code == 28
    assert [each["image"] for each in json.loads(run.out.splitlines()[0])["failed"]] == ["web1.data", "web1.root"]
    assert read_tree(out) == content


def test_a_disk_that_was_also_backed_up_alone_is_of_the_moment_of_its_group(
    repo: Path, disks: list[Path], out: Path
) -> None:
    content = back_up_group(repo, *disks)
    make_image(disks[0])
    back_up(repo, "web1.root", disks[0])
    run = succeed("restore", "--all", "--into", out, repo=repo)
    assert "left out: all disks of a group are of one moment" in run.err
    assert read_tree(out) == dict(zip(("root.raw", "data.raw"), content, strict=True))


def test_a_disk_that_has_left_its_group_is_restored_by_itself(repo: Path, disks: list[Path], out: Path) -> None:
    content = dict(zip(("root.raw", "data.raw"), back_up_group(repo, *disks), strict=True))
    make_image(disks[0])
    content["root.raw"] = back_up_group(repo, disks[0])[0]
    run = succeed("restore", "--all", "--into", out, repo=repo)
    assert "warning" not in run.err
    assert read_tree(out) == content


# -- elsewhere ---------------------------------------------------------------------------------------------------------


def test_a_copy_that_is_encrypted_gives_back_all_images(
    own_cache: None, disks: list[Path], tmp_path: Path, out: Path
) -> None:
    repo, key, copy = tmp_path / "sealed", tmp_path / "key", tmp_path / "copy"
    succeed("init", "-r", repo, "--encryption", "keyfile", "--key-file", key)
    opened = ("--key-file", key)
    succeed("backup", "--group", "web1", *(f"{path.stem}={path}" for path in disks), "-q", *opened, repo=repo)
    content = {path.name: path.read_bytes() for path in disks} | {
        "vm1.raw": back_up(repo, "vm1", make_image(tmp_path / "vm1.raw"), *opened)
    }
    succeed("init", "-r", copy, "--like", repo, "--encryption", "keyfile", *opened)
    succeed("sync", repo, copy, *opened)
    shutil.rmtree(repo)
    restore = ("restore", "--all", "--into", out, "--force", *opened)
    assert "warning" not in succeed(*restore, repo=copy).err
    assert read_tree(out) == content
    # What the store withholds is noticed, also by a host that has never seen it.
    shutil.rmtree(os.environ["XDG_STATE_HOME"])
    shutil.rmtree(copy / "snapshots" / "vm1")
    assert "warning: snapshots/vm1/: vm1@" in succeed(*restore, repo=copy).err
    assert "warning" not in succeed("restore", "--image", "web1", *restore[2:], repo=copy).err


def test_an_image_that_has_vanished_is_named(repo: Path, tmp_path: Path, out: Path) -> None:
    for name in ("a", "b"):
        back_up(repo, name, make_image(tmp_path / f"{name}.raw"))
    shutil.rmtree(repo / "snapshots" / "a")
    run = succeed("restore", "--all", "--into", out, repo=repo)
    assert "warning: image 'a' had snapshots on " in run.err
    assert "warning" not in succeed("restore", "--image", "b", "--into", out, "--force", repo=repo).err


def test_an_interrupted_run_leaves_complete_files_alone(repo: Path, tmp_path: Path, out: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    content = back_up(repo, "a", make_image(tmp_path / "a.raw"))
    back_up(repo, "b", make_image(tmp_path / "b.raw", MIB))
    back_up(repo, "c", make_image(tmp_path / "c.raw"))
    moved = ("--map", f"{tmp_path / 'b.raw'}={tmp_path / 'pipe'}")
    words = command("restore", "--all", "--into", out, *moved)
    # The second target is a pipe of which nothing is read, so that the run waits there.
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    with subprocess.Popen(
        words, env=environment(repo), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith("a@")
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
    os.close(reader)
    assert process.returncode == 130
    assert "a file that has its name is complete" in said
    assert read_tree(out) == {"a.raw": content}
