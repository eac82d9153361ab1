# SPDX-License-Identifier: Apache-2.0
"""Real servers that are killed, lines that are cut, and several hosts at once: S3 and SFTP keep what a local disk keeps."""

from __future__ import annotations

import random
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.images import SyntheticImage, make_incompressible_image
from tests.support.program import command, deltaimg, environment, succeed
from tests.support.s3_servers import S3Server, seaweedfs
from tests.support.sshd import SshServer

MIB = 1 << 20
IMAGE_BYTES = MIB + MIB // 2


@dataclass(frozen=True, slots=True)
class Place:
    """A repository on a server of the test's own, and what happens to the server."""

    address: str
    kill: Callable[[], None]
    start: Callable[[], None]


@pytest.fixture(params=["s3", "sftp"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    if request.param == "s3":
        with seaweedfs(tmp_path / "seaweedfs") as server:
            yield Place(server.location(server.make_bucket(), "vm"), server.kill, server.start)
    else:
        sshd: SshServer = request.getfixturevalue("sshd")

        def kill() -> None:
            sshd.stop()
            sshd.cut_connections()

        try:
            yield Place(sshd.url(tmp_path / "repository"), kill, sshd.start)
        finally:
            if sshd.process.poll() is not None:
                sshd.start()


def begin(*arguments: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command(*arguments), env=environment(None), stderr=subprocess.PIPE)


def wait_until_open(place: Place) -> None:
    """Wait for a server that answers and cannot read all that it holds yet: a first request is not made again."""
    end = time.monotonic() + 60
    while deltaimg("snapshots", "-r", place.address).code != 0:
        assert time.monotonic() < end


def check_restores(place: Place, tmp_path: Path, states: dict[str, bytes]) -> None:
    """All snapshots are whole and hold what was backed up."""
    succeed("check", "--read-packs", "-r", place.address)
    listed = succeed("snapshots", "--json", "-r", place.address).json
    assert {each["snapshot"] for each in listed} >= states.keys()
    for number, (snapshot, content) in enumerate(states.items()):
        target = tmp_path / f"restored-{number}"
        image = next(each["image"] for each in listed if each["snapshot"] == snapshot)
        succeed("restore", f"{image}@{snapshot}", target, "-r", place.address)
        assert target.read_bytes() == content
        target.unlink()


def back_up(place: Place, path: Path, image: SyntheticImage, name: str, *options: str) -> str:
    """Back an image up and return the snapshot's id."""
    path.unlink(missing_ok=True)
    image.save(path)
    made = succeed("backup", path, "--image", name, "--json", "--no-cache", *options, "-r", place.address)
    return made.json["snapshot"]


def test_a_server_that_is_killed_and_comes_back_is_waited_for(place: Place, tmp_path: Path) -> None:
    image, path, states = make_incompressible_image(IMAGE_BYTES, seed=1), tmp_path / "vm1.raw", {}
    succeed("init", "-r", place.address)
    states[back_up(place, path, image, "vm1")] = bytes(image.content)
    image.write_random(0, IMAGE_BYTES)
    path.unlink()
    image.save(path)
    run = begin("backup", path, "--image", "vm1", "-q", "--no-cache", "--bwlimit", "256K", "-r", place.address)
    while not succeed("unlock", "--json", "-r", place.address).json:
        assert run.poll() is None  # a run that cannot open its repository at all ends at once
    place.kill()
    time.sleep(1.0)
    place.start()
    said = run.communicate(timeout=120)[1]
    assert run.returncode == 0, said
    newest = max(succeed("snapshots", "--json", "-r", place.address).json, key=lambda each: each["time"])
    states[newest["snapshot"]] = bytes(image.content)
    check_restores(place, tmp_path, states)


def test_runs_that_a_dead_server_ends_leave_a_whole_repository(place: Place, tmp_path: Path, seed: int) -> None:
    """The run is killed with its server, as in a power cut of both, at a moment chosen by chance; then all goes on."""
    chance = random.Random(seed)
    image, path, states = make_incompressible_image(IMAGE_BYTES, seed=2), tmp_path / "vm1.raw", {}
    succeed("init", "-r", place.address)
    states[back_up(place, path, image, "vm1")] = bytes(image.content)
    for arguments in (("backup", path, "--image", "vm1"), ("forget", "vm1", "--keep-last", 1, "--prune")):
        image.write_random(chance.randrange(IMAGE_BYTES // 2), IMAGE_BYTES // 2)
        path.unlink()
        image.save(path)
        run = begin(*arguments, "-q", "-r", place.address)
        time.sleep(0.3 + 0.7 * chance.random())
        place.kill()
        run.kill()
        run.communicate()
        place.start()
        wait_until_open(place)
        listed = {each["snapshot"] for each in succeed("snapshots", "--json", "-r", place.address).json}
        states = {snapshot: content for snapshot, content in states.items() if snapshot in listed}
        deltaimg("unlock", "vm1", "--force", "-r", place.address)
        succeed("check", "--read-packs", "-r", place.address)
        states[back_up(place, path, image, "vm1")] = bytes(image.content)
    succeed("prune", "-r", place.address)
    check_restores(place, tmp_path, states)


@pytest.mark.parametrize("kind", ["s3", "sftp"])
def test_two_hosts_back_up_while_a_third_prunes(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "s3":
        server: S3Server = request.getfixturevalue("s3_server")
        address = server.make_place()
    else:
        address = request.getfixturevalue("sshd").url(tmp_path / "repository")
    place = Place(address, lambda: None, lambda: None)
    succeed("init", "-r", address)
    path, states = tmp_path / "first.raw", dict[str, bytes]()
    back_up(place, path, make_incompressible_image(MIB, seed=9), "first")
    errors: list[BaseException] = []
    prunes = 0

    def run_host(name: str) -> None:
        try:
            image = make_incompressible_image(IMAGE_BYTES, seed=len(name))
            for count in range(20):
                if count >= 3 and prunes > 1:
                    break
                image.write_random(0, IMAGE_BYTES // 2)
                snapshot = back_up(place, tmp_path / f"{name}.raw", image, name, "--lock-wait", "60s")
                states[snapshot] = bytes(image.content)
        except BaseException as error:
            errors.append(error)

    hosts = [threading.Thread(target=run_host, args=(name,)) for name in ("web", "mail1")]
    for host in hosts:
        host.start()
    while any(host.is_alive() for host in hosts):
        for name in ("web", "mail1"):
            deltaimg("forget", name, "--keep-last", 2, "-q", "-r", address)  # there may be none yet
        succeed("prune", "--max-unused", "0%", "-q", "-r", address)
        prunes += 1
    for host in hosts:
        host.join()
    assert not errors, errors
    assert prunes > 1
    listed = {each["snapshot"] for each in succeed("snapshots", "--json", "-r", address).json}
    assert len(listed) >= 4
    check_restores(place, tmp_path, {snapshot: content for snapshot, content in states.items() if snapshot in listed})
