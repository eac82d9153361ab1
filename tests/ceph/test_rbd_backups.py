# SPDX-License-Identifier: Apache-2.0
"""Images of a real Ceph cluster: what is read, frozen, tracked and kept, and what is refused."""

from __future__ import annotations

import json
import signal
import threading
import time
from pathlib import Path

import pytest

from deltaimg.errors import FreezeFailed, FreezeLost, ImageError, ImageInUse, UsageError
from deltaimg.freeze.freeze import freeze_image
from deltaimg.image.open_source import open_source
from deltaimg.image.rbd.image import opened_rbd_image
from deltaimg.model import MIB
from deltaimg.options.freeze import FreezeOptions
from tests.support.ceph import Cluster
from tests.support.guests import read_captured
from tests.support.program import fail, succeed
from tests.support.rbd import OBJECT_BYTES, PAGE, POOL, SIZE_BYTES, Disk, run

pytestmark = pytest.mark.ceph


def assert_tracked(disk: Disk, manifest: object, most_bytes: int) -> None:
    tracking = manifest.tracking  # type: ignore[attr-defined]
    assert (tracking.method, tracking.refuted_blocks, disk.progress.messages) == ("rbd", 0, []), tracking.reason
    assert tracking.unchanged_bytes >= SIZE_BYTES // 2 - most_bytes


def test_an_image_is_read_as_it_is_and_from_a_snapshot(disk: Disk) -> None:
    assert disk.back_up("none").freeze is None
    run("rbd", "snap", "create", "--no-progress", f"{disk.spec}@monday")
    disk.write()
    disk.assert_restores(disk.back_up("none", path=f"{disk.path}@monday"), f"{disk.spec}@monday")
    manifest = disk.back_up("none", freeze="auto")
    assert manifest.freeze is not None
    assert (manifest.freeze.method, manifest.source) == ("rbd", disk.path)
    disk.assert_restores(manifest)
    assert disk.list_snapshots() == ["monday"]


def test_an_image_in_a_namespace(cluster: Cluster, tmp_path: Path) -> None:
    disk = Disk("customer7/vm1", tmp_path)
    for _ in range(2):
        disk.write()
        manifest = disk.back_up()
    assert_tracked(disk, manifest, MIB)
    disk.assert_restores(manifest)


@pytest.mark.parametrize(
    "options", [(), ("--image-feature", "layering"), ("--image-feature", "layering,exclusive-lock")]
)
def test_what_was_written_is_read_and_nothing_else(options: tuple[str, ...], cluster: Cluster, tmp_path: Path) -> None:
    """With fast-diff, and for images that do not have it."""
    disk = Disk(f"features{len(''.join(options))}", tmp_path, *options)
    manifest = disk.back_up()
    assert manifest.tracking is not None
    assert manifest.tracking.method == "scan"
    changes = (
        disk.write,
        lambda: None,
        lambda: disk.write_at((SIZE_BYTES - PAGE, b"end" * 1000), (3 * MIB, b"new")),
        lambda: disk.clear(OBJECT_BYTES, OBJECT_BYTES),
        lambda: disk.clear(9 * MIB, 100_000),
        lambda: disk.clear(2 * OBJECT_BYTES + MIB, 3 * MIB),
        lambda: disk.write(30),
    )
    for change in changes:
        change()
        manifest = disk.back_up()
        assert_tracked(disk, manifest, 7 * MIB)
        disk.assert_restores(manifest)
        [kept] = disk.list_snapshots()
        assert f"-{manifest.id}-" in kept
    pages = [[offset, offset + PAGE] for offset in range(10 * OBJECT_BYTES, 10 * OBJECT_BYTES + 2 * MIB, 64 * PAGE)]
    disk.write_at(*((offset, disk.random.randbytes(PAGE)) for offset, _ in pages))
    run("rbd", "snap", "create", "--no-progress", f"{disk.spec}@now")
    with opened_rbd_image(disk.address.at("now")) as image:
        assert image.find_changes(kept).tolist() == pages


def test_a_clone_is_read_with_what_it_has_of_its_parent(disk: Disk, tmp_path: Path) -> None:
    run("rbd", "snap", "create", "--no-progress", f"{disk.spec}@golden")
    run("rbd", "snap", "protect", f"{disk.spec}@golden")
    clone = Disk.__new__(Disk)
    clone.__dict__.update(disk.__dict__)
    clone.spec, clone.path = f"{disk.spec}-clone", f"{disk.path}-clone"
    clone.address = disk.address.__class__(POOL, "", f"{disk.address.image}-clone")
    run("rbd", "clone", f"{disk.spec}@golden", clone.spec)
    clone.assert_restores(clone.back_up())
    clone.write()
    clone.clear(2 * OBJECT_BYTES, OBJECT_BYTES)
    manifest = clone.back_up()
    assert_tracked(clone, manifest, 6 * MIB)
    clone.assert_restores(manifest)
    run("rbd", "flatten", "--no-progress", clone.spec)
    clone.write()
    clone.assert_restores(clone.back_up())


def test_an_image_that_grew_or_was_rolled_back_or_resized(disk: Disk) -> None:
    disk.back_up()
    run("rbd", "snap", "create", "--no-progress", f"{disk.spec}@before")
    disk.write(40)
    disk.back_up()
    run("rbd", "snap", "rollback", "--no-progress", f"{disk.spec}@before")
    manifest = disk.back_up()
    assert manifest.tracking is not None
    assert (manifest.tracking.method, manifest.tracking.refuted_blocks) == ("rbd", 0)
    disk.assert_restores(manifest)
    run("rbd", "resize", "--no-progress", disk.spec, "--size", f"{SIZE_BYTES + 6 * MIB}B")
    disk.write_at((SIZE_BYTES + MIB, b"more"))
    disk.assert_restores(disk.back_up())
    run("rbd", "resize", "--no-progress", "--allow-shrink", disk.spec, "--size", f"{SIZE_BYTES - 5 * MIB - 1000}B")
    disk.assert_restores(disk.back_up())


def test_writes_while_it_is_read_are_of_the_next_backup(disk: Disk) -> None:
    is_over = threading.Event()

    def write() -> None:
        with opened_rbd_image(disk.address, is_writable=True) as image:
            while not is_over.is_set():
                offset = disk.random.randrange(SIZE_BYTES // PAGE) * PAGE
                image.write(offset, memoryview(disk.random.randbytes(PAGE)))

    disk.back_up()
    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(4):
            manifest = disk.back_up()
            assert manifest.tracking is not None
            assert (manifest.tracking.method, manifest.tracking.refuted_blocks) == ("rbd", 0)
            disk.assert_restores(manifest, f"{disk.spec}@{disk.list_snapshots()[0]}")
        with pytest.raises(ImageInUse, match="another client of Ceph"):
            disk.back_up("none")
    finally:
        is_over.set()
        writer.join()


@pytest.mark.parametrize("what", ["removed", "made again", "of another image name"])
def test_what_became_of_the_kept_snapshot_costs_a_scan(what: str, disk: Disk) -> None:
    disk.back_up()
    [kept] = disk.list_snapshots()
    disk.write(20)
    if what != "of another image name":
        run("rbd", "snap", "rm", "--no-progress", f"{disk.spec}@{kept}")
    if what == "made again":
        run("rbd", "snap", "create", "--no-progress", f"{disk.spec}@{kept}")
    manifest = disk.back_up(name="vm2" if what == "of another image name" else "vm1")
    assert manifest.tracking is not None
    assert manifest.tracking.method == "scan"
    disk.assert_restores(manifest)
    left = disk.list_snapshots()
    assert len(left) == (2 if what == "of another image name" else 1)
    assert (kept in left) == (what == "of another image name")


def test_a_backup_without_tracking_keeps_nothing(disk: Disk) -> None:
    disk.back_up()
    assert len(disk.list_snapshots()) == 1
    disk.back_up("none", freeze="rbd")
    assert disk.list_snapshots() == []


def test_a_snapshot_that_was_removed_while_it_is_read(disk: Disk) -> None:
    """What is read of it afterwards may be anything."""
    with freeze_image(disk.path, FreezeOptions(freeze="rbd"), print) as point:
        run("rbd", "snap", "rm", "--no-progress", point.path.removeprefix("rbd:"))
        with pytest.raises(FreezeLost, match="was removed"):
            point.end_reading()
    run("rbd", "snap", "create", "--no-progress", f"{disk.spec}@monday")
    source = open_source(f"{disk.path}@monday")
    assert source.find_change() is None
    run("rbd", "snap", "rm", "--no-progress", f"{disk.spec}@monday")
    assert source.find_change() == "snapshot monday was removed while it was read"
    source.close()
    source = open_source(disk.path)
    assert source.find_change() is None
    with opened_rbd_image(disk.address, is_writable=True):
        assert source.find_change() is not None
    assert source.find_change() is None
    time.sleep(1.1)  # Ceph notes the time of a write once a second at most in these tests, once a minute elsewhere.
    disk.write(1)
    assert source.find_change() is not None
    source.close()


def test_groups(disk: Disk, tmp_path: Path) -> None:
    other = Disk(f"{disk.address.image}-data", tmp_path)
    repo = tmp_path / "repo"
    succeed("init", "--encryption", "none", repo=repo)
    disks = (f"root={disk.path}", f"data={other.path}")
    for _ in range(2):
        disk.write()
        other.write()
        succeed("backup", "--group", "web1", *disks, "--track", "auto", repo=repo)
    for name in ("root", "data"):
        assert succeed("show", f"web1.{name}", "--json", repo=repo).json["tracking"]["method"] == "rbd"
    for each, name in ((disk, "root"), (other, "data")):
        succeed("verify", f"web1.{name}", "--against", each.path, repo=repo)
        assert len(each.list_snapshots()) == 1
    assert "are the same" in fail(2, "backup", "--group", "web1", f"a={disk.path}", f"b={disk.path}", repo=repo)


def test_a_guest_of_libvirt(disk: Disk, tmp_path: Path) -> None:
    repo, config = tmp_path / "repo", tmp_path / "web1.xml"
    config.write_text(read_captured("virsh-dumpxml.xml", {"pool/vm": disk.spec}))
    others = [word for name in ("vda", "vdb", "vdc") for word in ("--exclude-disk", name)]
    succeed("init", "--encryption", "none", repo=repo)
    succeed("backup", "--guest", "web1", "--guest-config", config, *others, repo=repo)
    moved = ("--map", f"{disk.path}={disk.path}-moved")
    succeed("restore", "--guest", "web1", *moved, repo=repo)
    succeed("verify", "web1.vde", "--against", f"{disk.path}-moved", repo=repo)
    said = succeed("restore", "--guest", "web1", "--config-only", *moved, repo=repo).text
    assert said == config.read_text().replace(disk.spec, f"{disk.spec}-moved")


def test_hints_of_rbd_diff(disk: Disk, tmp_path: Path) -> None:
    base = disk.back_up("none")
    run("rbd", "snap", "create", "--no-progress", f"{disk.spec}@{base.id}")
    disk.write()
    disk.clear(OBJECT_BYTES, OBJECT_BYTES)
    run("rbd", "snap", "create", "--no-progress", f"{disk.spec}@today")
    changed = run("rbd", "diff", "--format", "json", "--from-snap", base.id, f"{disk.spec}@today")
    hints = tmp_path / "hints.json"
    hints.write_text(json.dumps({"snapshot": base.id, "extents": json.loads(changed)}))
    manifest = disk.back_up("none", path=f"{disk.path}@today", hints=str(hints))
    assert manifest.tracking is not None
    assert (manifest.tracking.method, manifest.tracking.refuted_blocks) == ("hints", 0)
    disk.assert_restores(manifest, f"{disk.spec}@today")


def test_restores_to_images(disk: Disk, tmp_path: Path) -> None:
    repo, new = tmp_path / "repo", f"{disk.path}-new"
    succeed("init", "--encryption", "none", repo=repo)
    disk.clear(OBJECT_BYTES, MIB)
    succeed("backup", disk.path, "-i", "vm1", repo=repo)
    succeed("restore", "vm1", new, repo=repo)
    succeed("verify", "vm1", "--against", new, repo=repo)
    features = [
        json.loads(run("rbd", "info", each, "--format", "json"))["features"] for each in (disk.spec, f"{disk.spec}-new")
    ]
    assert features[0] == features[1]
    assert "is an image of Ceph that exists" in fail(13, "restore", "vm1", new, repo=repo)
    spoiled = Disk(f"{disk.address.image}-spoiled", tmp_path)
    spoiled.write_at((OBJECT_BYTES, b"x" * MIB))
    succeed("restore", "vm1", spoiled.path, "--force", repo=repo)
    succeed("verify", "vm1", "--against", spoiled.path, repo=repo)
    run("rbd", "create", f"{disk.spec}-small", "--size", "8M")
    fail(14, "restore", "vm1", f"{disk.path}-small", "--force", repo=repo)
    fail(2, "restore", "vm1", f"{disk.path}@x", repo=repo)
    with opened_rbd_image(spoiled.address, is_writable=True):
        fail(17, "restore", "vm1", spoiled.path, "--force", repo=repo)
    # As a restore that was killed leaves it.
    run("rbd", "create", f"{disk.spec}-third.deltaimg-partial", "--size", "8M")
    succeed("restore", "vm1", f"{disk.path}-third", repo=repo)
    assert not [each for each in run("rbd", "ls", POOL).split() if each.endswith("partial")]


def test_bad_addresses_and_options(disk: Disk, tmp_path: Path) -> None:
    for spec, message in (
        ("nowhere/vm1", "the cluster has no pool nowhere"),
        (f"{POOL}/nobody", "there is no image nobody in vms"),
        (f"{POOL}/customer8/vm1", "there is no image vm1 in vms/customer8"),
        (f"{disk.spec}@tuesday", "the image has no snapshot tuesday"),
    ):
        with pytest.raises(ImageError, match=message):
            open_source(f"rbd:{spec}")
        with pytest.raises(ImageError, match=message):
            disk.back_up(path=f"rbd:{spec}")
    run("rbd", "snap", "create", "--no-progress", f"{disk.spec}@monday")
    with pytest.raises(FreezeFailed, match="is a snapshot already"):
        disk.back_up("none", path=f"{disk.path}@monday", freeze="rbd")
    with pytest.raises(FreezeFailed, match="is not a logical volume"):
        disk.back_up("none", freeze="lvm")
    with pytest.raises(UsageError, match="--format qcow2 is for files"):
        disk.back_up("none", format="qcow2")
    with pytest.raises(ImageError, match="--direct is for files"):
        disk.back_up("none", is_direct=True)
    flat = tmp_path / "flat.raw"
    flat.write_bytes(b"flat" * 5000)
    with pytest.raises(FreezeFailed, match="is not an image of Ceph"):
        disk.back_up("rbd", path=str(flat))
    disk.back_up("none", path=f"{disk.path}@monday")
    reason = disk.back_up(path=f"{disk.path}@monday").tracking
    assert reason is not None
    assert "is a snapshot already" in reason.reason


def test_clusters_that_cannot_be_used(
    disk: Disk, cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Path(cluster.settings).read_text()
    silent = settings.replace(str(cluster.ports[0]), "1").replace(str(cluster.ports[1]), "1")

    def configure(text: str) -> None:
        path = tmp_path / "ceph.conf"
        path.write_text(text)
        monkeypatch.setenv("CEPH_CONF", str(path))

    def assert_refused(message: str) -> None:
        with pytest.raises(ImageError, match=message) as refused:
            disk.back_up()
        assert refused.value.exit_code == 10
        assert refused.value.hint

    configure(silent.replace("[mon]", "client_mount_timeout = 2\n[mon]"))
    assert_refused("did not answer within 2 seconds")
    keyring = tmp_path / "keyring"
    configure("".join(line for line in settings.splitlines(keepends=True) if not line.startswith("keyring")))
    monkeypatch.setenv("CEPH_KEYRING", str(keyring))
    assert_refused(f"no key of client.admin can be read; it would be in {keyring}")
    run("ceph-authtool", "--create-keyring", keyring, "--gen-key", "-n", "client.admin")
    assert_refused("does not accept the key of client.admin")
    allowed = ("mon", "profile rbd", "osd", f"profile rbd-read-only pool={POOL}")
    admin = ("ceph", "-c", cluster.settings, "-k", Path(cluster.settings).with_name("keyring"))
    keyring.write_text(run(*admin, "auth", "get-or-create", "client.reader", *allowed))
    monkeypatch.setenv("CEPH_ARGS", "--id reader")
    with pytest.raises(FreezeFailed, match="cannot be opened to write: Ceph does not allow it to this user"):
        disk.back_up("rbd")
    manifest = disk.back_up()
    assert manifest.freeze is not None
    assert manifest.freeze.method == "none"
    assert "does not allow it" in manifest.freeze.reason
    monkeypatch.setenv("CEPH_ARGS", "--name=client.nobody")
    assert_refused("does not accept the key of client.nobody")
    monkeypatch.delenv("CEPH_ARGS")
    monkeypatch.setenv("CEPH_CONF", str(tmp_path / "nothing"))
    assert_refused("no ceph.conf can be read")
    configure("[global]\nmon_dns_srv_name = nothing-here\n")
    assert_refused("names no monitor of the cluster")
    configure("[global]\nmon_host = host.invalid\n")
    assert_refused("in a way that leads nowhere")


def test_an_osd_that_does_not_answer(
    disk: Disk, cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ceph.conf"
    path.write_text(Path(cluster.settings).read_text().replace("[mon]", "rados_osd_op_timeout = 3\n[mon]"))
    monkeypatch.setenv("CEPH_CONF", str(path))
    source = open_source(disk.path)
    cluster.osd.send_signal(signal.SIGSTOP)
    try:
        with pytest.raises(ImageError, match="did not answer in time"):
            source.peek(4096)
        with pytest.raises(ImageError, match="did not answer in time"):
            disk.back_up()
    finally:
        cluster.osd.send_signal(signal.SIGCONT)
        source.close()
    disk.assert_restores(disk.back_up())


def test_doctor(disk: Disk) -> None:
    outlook = succeed("doctor", disk.path, "--json").json["images"][0]
    assert (outlook["freeze"], outlook["track"]) == ("rbd", "rbd")
    assert {"name": "images of Ceph", "is_good": True, "detail": "librbd", "hint": ""} in succeed(
        "doctor", "--json"
    ).json["host"]
