# SPDX-License-Identifier: Apache-2.0
"""The rows that deltaimg runs alone: start-up, the digest floor, the chain of 200 backups, a huge sparse image."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from keepers import Deltaimg
from peer import CHECKOUT, GuestImage
from synthetic import chain_states, sparse_image

from measuring.campaign import Setting, say
from measuring.files import allocated_bytes, are_equal_sparse, remove, stored_bytes, warm
from measuring.process import Command, CommandError, measure
from measuring.results import Measurement

_CHAIN_BACKUPS = 200
_SPARE_BYTES = 8 << 30


def run_start_up(setting: Setting, peer: Deltaimg) -> list[Measurement]:
    """CPU time of `deltaimg --help` and `deltaimg version`."""
    found = []
    for argument in ("--help", "version"):
        command = Command(peer.command(argument), CHECKOUT)
        one = Measurement(setting.guest, "start-up", argument, 0, peer.name, peer.version(), command=str(command))
        measure(command)
        for _ in range(max(5, setting.runs)):
            one.add(measure(command))
        found.append(one)
    return found


def run_digest(setting: Setting, number: int) -> list[Measurement]:
    """What `digest_blocks` alone needs for the data of one image."""
    script, image = str(CHECKOUT / "benchmarks" / "digest_floor.py"), setting.image(number)
    warm(image)
    command = [sys.executable, script, str(image), "--runs", str(setting.runs)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    said = json.loads(done.stdout)
    note = f"{said['data_bytes']} bytes, {said['threads']} threads"
    return [Measurement(setting.guest, "digest", "quiet", number, "digest_blocks", value=said["seconds"], note=note)]


def run_chain(setting: Setting, peer: Deltaimg, backups: int = _CHAIN_BACKUPS) -> list[Measurement]:
    """Restore the tip of a long chain, and a full snapshot with the same content, in turns."""
    image = setting.trial / "chain.raw"
    states = {"tip": setting.trial / "chain-tip", "full": setting.trial / "chain-full"}
    for state in states.values():
        peer.prepare(state)
    for number in chain_states(image, seed=200, states=backups):
        back_up(peer, states["tip"], image, number)
        if number % 50 == 0:
            say(f"chain: backup {number} of {backups} backed up")
    back_up(peer, states["full"], image, 0)
    found = {
        name: Measurement(setting.guest, "restore", "chain", backups, f"deltaimg-{name}", peer.version())
        for name in states
    }
    for _ in range(setting.runs):
        for name, state in states.items():
            restore_once(setting, peer, found[name], state, image)
    for place in (image, *states.values()):
        remove(place)
    return list(found.values())


def run_memory(setting: Setting, peer: Deltaimg, *, apparent_gib: int = 1024, data_gib: int = 20) -> list[Measurement]:
    """Back up a huge sparse image twice, then restore it if the disk has room; what counts is peak memory.

    Its blocks are all distinct, but cheap to make: memory goes by how many there are, not by what they hold.
    """
    image, state = setting.trial / "sparse.raw", setting.trial / "sparse"
    setting.trial.mkdir(parents=True, exist_ok=True)
    try:
        sparse_image(image, apparent_bytes=apparent_gib << 30, data_bytes=data_gib << 30, is_stamped=True)
        peer.prepare(state)
        found = []
        for number, row in enumerate(("memory-full", "memory-again")):
            one = Measurement(setting.guest, "backup", row, number, peer.name, peer.version())
            before = stored_bytes(state / "repo")
            one.add(measure(_remember(one, peer.backup(state, GuestImage(number, image, image, number)))))
            one.stored_bytes.append(stored_bytes(state / "repo") - before)
            found.append(one)
        found.append(_restore_sparse(setting, peer, state, image))
    finally:
        remove(image)
        remove(state)
    return found


def _restore_sparse(setting: Setting, peer: Deltaimg, state: Path, image: Path) -> Measurement:
    one = Measurement(setting.guest, "restore", "memory-restore", 1, peer.name, peer.version())
    if shutil.disk_usage(setting.trial).free < allocated_bytes(image) + _SPARE_BYTES:
        one.note = "not run: the disk has no room for the restored image"
        return one
    restore_once(setting, peer, one, state, image)
    return one


def restore_once(setting: Setting, peer: Deltaimg, into: Measurement, state: Path, image: Path) -> None:
    """Restore the newest snapshot, time it, and compare it with the image."""
    target = setting.trial / "target"
    remove(target)
    target.mkdir(parents=True)
    warm(state)
    sample = measure(_remember(into, peer.restore(state, target, GuestImage(0, image, image, 0))))
    into.add(sample)
    plan_s = _plan_seconds(sample.output)
    if plan_s is not None:
        into.value.append(plan_s)
    into.allocated_bytes.append(allocated_bytes(peer.restored(target)))
    into.equal.append(int(are_equal_sparse(peer.restored(target), image)))
    remove(target)


def _plan_seconds(output: str) -> float | None:
    """`plan_s` of the last JSON object that a restore printed."""
    for line in reversed(output.splitlines()):
        try:
            said = json.loads(line)
        except ValueError:
            continue
        if isinstance(said, dict) and "plan_s" in said:
            return float(said["plan_s"])
    return None


def back_up(peer: Deltaimg, state: Path, image: Path, number: int) -> None:
    """Back an image up, untimed."""
    command = peer.backup(state, GuestImage(number, image, image, number))
    environment = {**os.environ, **command.environment}
    folder = command.folder
    done = subprocess.run(command.argv, check=False, env=environment, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise CommandError(f"backup {number}: exit {done.returncode}\n{done.stderr[-2000:]}")


def _remember(one: Measurement, command: Command) -> Command:
    one.command = str(command)
    return command
