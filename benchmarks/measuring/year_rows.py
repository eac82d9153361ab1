# SPDX-License-Identifier: Apache-2.0
"""The rows of a long chain: forgetting most of a year and pruning, forgetting one snapshot, checking a thousand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from keepers import Deltaimg, Keeper
from peer import CHECKOUT, GuestImage
from peers import PEERS
from synthetic import chain_states, year_states

from measuring.campaign import say
from measuring.described import describe_repository
from measuring.files import copy_tree, link_tree, remove, stored_bytes, warm
from measuring.own_rows import back_up
from measuring.process import Command, CommandError, measure
from measuring.results import Measurement

_SEED = 365
_KEPT = 65 / 365
_KEPT_NEWEST = 30 / 365
_CHAIN_BACKUPS = 20
_MANY_IMAGES, _MANY_BACKUPS = 4, 250


@dataclass(frozen=True, slots=True)
class Year:
    """A year of backups, and where its repositories lie: they are made once and then used again."""

    work: Path
    scale: int
    backups: int
    runs: int

    @property
    def guest(self) -> str:
        """The name that results go by."""
        return f"year-{self.scale}"

    @property
    def place(self) -> Path:
        """The folder of what lasts."""
        return self.work / self.guest

    @property
    def trial(self) -> Path:
        """The folder of what does not."""
        return self.work / "trial"

    @property
    def image_bytes(self) -> int:
        """The image's size."""
        return (64 << 30) // self.scale

    @property
    def data_bytes(self) -> int:
        """What of it is data."""
        return (10 << 30) // self.scale

    @property
    def kept(self) -> list[int]:
        """The backups that stay: of 365 the newest thirty, and 35 others spread evenly over those before."""
        older = self.backups - round(self.backups * _KEPT_NEWEST)
        count = round(self.backups * (_KEPT - _KEPT_NEWEST))
        return [*(place * older // count for place in range(count)), *range(older, self.backups)]

    def describe(self) -> str:
        """The scale, in words."""
        sizes = f"{self.image_bytes / (1 << 30):g} GiB with {self.data_bytes / (1 << 30):g} GiB of data"
        return f"scale 1/{self.scale}: {self.backups} backups, {sizes}"

    def measurement(self, task: str, row: str, peer: Keeper) -> Measurement:
        """A measurement that says at which scale it was taken."""
        return Measurement(self.guest, task, row, 0, peer.name, peer.version(), note=self.describe())


def run_prune(year: Year, peer: Keeper) -> list[Measurement]:
    """Forget all backups but those that stay, prune without repacking, then with it.

    deltaimg also gets a fresh repository of the backups that stay, for its space to be compared with.
    """
    state, fresh = year.place / peer.name, year.place / f"{peer.name}-fresh"
    has_fresh = isinstance(peer, Deltaimg)
    _back_up_year(year, peer, [(state, range(year.backups)), *([(fresh, year.kept)] if has_fresh else [])])
    forget = year.measurement("forget", f"{year.backups - len(year.kept)} of {year.backups}", peer)
    plain, packed = (year.measurement("prune", row, peer) for row in ("without repack", "with repack"))
    before, kept = (year.measurement("size", row, peer) for row in ("before", "fresh"))
    idle = year.measurement("size", "reads of an empty prune", peer)
    before.stored_bytes = [stored_bytes(state / "repo")]
    kept.stored_bytes = [stored_bytes(fresh / "repo")] if has_fresh else []
    unwanted = sorted({*range(year.backups)} - {*year.kept})
    for _ in range(year.runs):
        trial = year.trial / peer.name
        (copy_tree if peer.changes_files else link_tree)(state, trial)
        warm(trial)
        _measure(forget, peer.forget(trial, unwanted), trial)
        _measure(plain, peer.prune(trial, may_repack=False), trial)
        _measure(packed, peer.prune(trial, may_repack=True), trial)
        peer.prepare(trial)
        _measure(idle, peer.prune(trial, may_repack=False), trial)
    remove(year.trial / peer.name)
    say(f"prune: {peer.name} done")
    return [before, forget, plain, packed, *([kept] if has_fresh else []), idle]


def run_forget(year: Year) -> list[Measurement]:
    """Forget the middle snapshot of a chain of twenty, of as much data as the year has, and of a tenth of that."""
    peer = _deltaimg()
    found = []
    for row, share in (("one in mid-chain", 1), ("one in mid-chain, a tenth of the data", 10)):
        state, image = year.trial / "forget", year.trial / "forget.raw"
        peer.prepare(state)
        sizes = {"image_bytes": max(1 << 30, year.image_bytes // share), "data_bytes": year.data_bytes // share}
        for number in year_states(image, seed=_SEED, states=_CHAIN_BACKUPS, **sizes):
            back_up(peer, state, image, number)
        one = year.measurement("forget", row, peer)
        for _ in range(year.runs):
            trial = year.trial / "forget-trial"
            link_tree(state, trial)
            warm(trial)
            _measure(one, peer.on(trial, "forget", f"guest@latest~{_CHAIN_BACKUPS // 2}"), trial)
        found.append(one)
        remove(year.trial)
        year.trial.mkdir()
        say(f"forget: {row} done")
    return found


def run_check(year: Year) -> list[Measurement]:
    """Check the structure of a repository of a thousand snapshots, in four images of 64 MiB of data each."""
    peer = _deltaimg()
    state = year.place / "thousand"
    if _count(peer, state) != _MANY_IMAGES * _MANY_BACKUPS:
        peer.prepare(state)
        _fill_with_many(state, year.trial / "many.raw")
    one = year.measurement("check", f"{_count(peer, state):,} snapshots", peer)
    one.note = f"{_MANY_IMAGES} images of 64 MiB of data, {stored_bytes(state / 'repo') >> 20} MiB stored"
    for _ in range(year.runs):
        warm(state)
        _measure(one, peer.on(state, "check"), state)
    return [one]


def run_prune_memory(year: Year) -> list[Measurement]:
    """Let check and prune meet a repository whose metadata describes 1 TiB of data, with a backup that nothing needs."""
    peer, state = _deltaimg(), year.trial / "described"
    peer.prepare(state)
    said = describe_repository(state / "repo", data_bytes=(1 << 40) // year.scale)
    tasks = {"check": peer.on(state, "check"), "prune": peer.prune(state, may_repack=False)}
    found = []
    for name, command in tasks.items():
        one = year.measurement(name, f"described, {1024 / year.scale:g} GiB", peer)
        one.note = f"scale 1/{year.scale}: {said}"
        found.append(one)
        try:
            _measure(one, command, state)
        except CommandError as failure:
            one.note = f"failed: {str(failure)[-300:]}"
    return found


def _back_up_year(year: Year, peer: Keeper, wanted: Sequence[tuple[Path, Sequence[int]]]) -> None:
    """Bring each state up to the last of its backups, from wherever an earlier run had come."""
    done = [_count(peer, state) for state, _ in wanted]
    for place, (state, _) in enumerate(wanted):
        if not (state / "cache").exists():
            peer.prepare(state)
            done[place] = 0
    if all(count >= len(numbers) for count, (_, numbers) in zip(done, wanted, strict=True)):
        return
    image, kept = year.place / "guest.raw", set(year.kept)
    sizes = {"image_bytes": year.image_bytes, "data_bytes": year.data_bytes}
    for number in year_states(image, seed=_SEED, states=year.backups, **sizes):
        for place, (state, numbers) in enumerate(wanted):
            if number in numbers and numbers.index(number) >= done[place]:
                _run(peer.backup_kept(state, GuestImage(number, image, image, number), is_kept=number in kept))
        if number % 20 == 0:
            say(f"year: {peer.name} has backup {number} of {year.backups}")
    remove(image)


def _count(peer: Keeper, state: Path) -> int:
    """How many snapshots the repository of a state has."""
    if not (state / "cache").exists():
        return 0
    said = json.loads(_run(peer.listing(state)))
    return len(said["archives"] if isinstance(said, dict) else said or [])


def _fill_with_many(state: Path, image: Path) -> None:
    """Back up through the Python interface, which spares a thousand processes."""
    sys.path.insert(0, str(CHECKOUT))
    import deltaimg

    repository = deltaimg.open_repository(str(state / "repo"))
    for number in range(_MANY_IMAGES):
        states = chain_states(
            image, seed=number, states=_MANY_BACKUPS - 1, image_bytes=1 << 30, data_bytes=64 << 20, edits=20
        )
        for _ in states:
            deltaimg.backup(repository, str(image), f"vm{number}")
        say(f"check: {_MANY_BACKUPS * (number + 1)} snapshots")
    remove(image)


def _measure(into: Measurement, command: Command, state: Path) -> None:
    """Run once; what the repository has afterwards counts as stored."""
    into.command = str(command)
    into.add(measure(command))
    into.stored_bytes.append(stored_bytes(state / "repo"))


def _run(command: Command) -> str:
    """Run untimed and return what it printed."""
    environment = {**os.environ, **command.environment}
    done = subprocess.run(
        command.argv, check=False, env=environment, cwd=command.folder, capture_output=True, text=True
    )
    if done.returncode:
        raise CommandError(f"{command}: exit {done.returncode}\n{done.stdout[-1000:]}{done.stderr[-2000:]}")
    return done.stdout


def _deltaimg() -> Deltaimg:
    peer = PEERS["deltaimg"]
    assert isinstance(peer, Deltaimg)
    return peer
