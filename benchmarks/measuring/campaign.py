# SPDX-License-Identifier: Apache-2.0
"""One guest's days through all peers: backups day after day, then restores.

Always  peers take turns within a repetition (A B C, A B C), so that a drift of the machine hits all alike. Images and
        repositories are warm in the page cache before each measurement, the disk is at rest. To repeat a backup, a
        peer's state is put back to what it was before it; none of that is timed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from guest.days import rows_of
from keepers import Keeper
from peer import GuestImage, Peer

from measuring.files import allocated_bytes, are_equal, copy_tree, remove, stored_bytes, warm
from measuring.process import Command, CommandError, add_samples, measure
from measuring.results import Measurement


@dataclass(frozen=True, slots=True)
class Setting:
    """What a campaign runs on: images in `work`, everything else below `work/trial`."""

    guest: str
    work: Path
    runs: int

    @property
    def trial(self) -> Path:
        """The folder that the campaign may fill and empty."""
        return self.work / "trial"

    @property
    def rows(self) -> tuple[str, ...]:
        """The row that each of the guest's days fills."""
        return rows_of(self.guest)

    def image(self, number: int) -> Path:
        """The image of a day."""
        return self.work / f"{self.guest}-night{number}.raw"

    def state(self, peer: Peer) -> Path:
        """A peer's repository and cache."""
        return self.trial / peer.name


class Campaign:
    """Keeps who is still in the race: a peer whose command fails is noted and left out from then on."""

    def __init__(self, setting: Setting, peers: Sequence[Peer]) -> None:
        self._setting = setting
        self._peers = list(peers)
        self._versions = {peer.name: peer.version() for peer in peers}

    def run_backups(self, wanted: Sequence[int], tip: int) -> list[Measurement]:
        """Back up all days up to `tip`; those that nobody asked for run once, unrecorded."""
        found: list[Measurement] = []
        for peer in self._peers:
            peer.prepare(self._setting.state(peer))
        for number in range(tip + 1):
            measured = self._run_backup(number, self._setting.runs if number in wanted else 1)
            found += measured if number in wanted else []
        return found

    def run_restores(self, numbers: Iterable[int], tip: int) -> list[Measurement]:
        """Restore the backups asked for, each as often as `runs` says."""
        found: list[Measurement] = []
        for number in numbers:
            table = self._table("restore", number)
            for repetition in range(self._setting.runs):
                for peer in list(self._peers):
                    self._restore(peer, table[peer.name], self._image_of(number, self._setting.image(number), tip))
                say(f"restore of backup {number}, repetition {repetition + 1} done")
            found += table.values()
        return found

    def run_verifies(self, tip: int) -> list[Measurement]:
        """Let each keeper read and verify all that it has stored, and deltaimg the newest snapshot alone, too."""
        found: dict[tuple[str, str], Measurement] = {}
        for repetition in range(self._setting.runs):
            for peer in list(self._peers):
                for row, command in peer.verify_commands(self._setting.state(peer)).items():
                    one = Measurement(self._setting.guest, "verify", row, tip, peer.name, self._versions[peer.name])
                    self._verify(peer, found.setdefault((row, peer.name), one), command)
            say(f"verify, repetition {repetition + 1} done")
        return list(found.values())

    def run_forget(self, tip: int, kept: int = 2) -> list[Measurement]:
        """Let each keeper forget all backups but the newest few and free the space: two commands, one sum of both."""
        found: list[Measurement] = []
        for peer in self._peers:
            if not isinstance(peer, Keeper):
                continue
            state, aside = self._setting.state(peer), self._aside(peer)
            copy_tree(state, aside)
            one = Measurement(self._setting.guest, "forget", "all but two", tip, peer.name, self._versions[peer.name])
            commands = (peer.forget_all_but(state, kept, tip + 1), peer.prune(state, may_repack=True))
            one.command = " && ".join(str(command) for command in commands)
            for repetition in range(self._setting.runs):
                if repetition:
                    copy_tree(aside, state)
                warm(state)
                try:
                    one.add(add_samples([measure(command) for command in commands]))
                except CommandError as failure:
                    one.note = f"failed: {str(failure)[-300:]}"
                    break
                one.stored_bytes.append(stored_bytes(state / "repo"))
            copy_tree(aside, state)
            remove(aside)
            found.append(one)
            say(f"forget by {peer.name} done")
        return found

    def _verify(self, peer: Peer, into: Measurement, command: Command) -> None:
        warm(self._setting.state(peer))
        into.command = str(command)
        try:
            into.add(measure(command))
        except CommandError as failure:
            into.note = f"failed: {str(failure)[-300:]}"

    def _run_backup(self, number: int, runs: int) -> list[Measurement]:
        table = self._table("backup", number)
        at = self._image_of(number, self._linked(number), number)
        for repetition in range(runs):
            for peer in list(self._peers):
                self._put_back(peer, repetition, runs)
                self._backup(peer, table[peer.name], at)
        for peer in self._peers:
            remove(self._aside(peer))
        say(f"day {number} ({self._setting.rows[number]}) backed up, {runs} runs")
        return list(table.values())

    def _backup(self, peer: Peer, into: Measurement, at: GuestImage) -> None:
        state = self._setting.state(peer)
        peer.make_room(state)
        before = stored_bytes(state / "repo")
        _warm_all(peer, state, at)
        command = peer.backup(state, at)
        into.command = str(command)
        try:
            sample = measure(command)
        except CommandError as failure:
            self._leave_out(peer, into, failure)
            return
        into.add(sample)
        into.value += peer.new_bytes(sample.output)
        into.stored_bytes.append(stored_bytes(state / "repo") - before)

    def _restore(self, peer: Peer, into: Measurement, at: GuestImage) -> None:
        state, target = self._setting.state(peer), self._setting.trial / "target"
        remove(target)
        target.mkdir()
        _warm_all(peer, state, at)
        command = peer.restore(state, target, at)
        into.command = str(command)
        try:
            into.add(measure(command))
        except CommandError as failure:
            self._leave_out(peer, into, failure)
        else:
            restored = peer.restored(target)
            into.allocated_bytes.append(allocated_bytes(restored))
            into.equal.append(int(are_equal(restored, at.image)))
        remove(target)

    def _put_back(self, peer: Peer, repetition: int, runs: int) -> None:
        """Keep the state before the first repetition; bring it back before the others."""
        state, aside = self._setting.state(peer), self._aside(peer)
        if repetition == 0 and runs > 1:
            copy_tree(state, aside)
        elif repetition > 0:
            copy_tree(aside, state)

    def _linked(self, number: int) -> Path:
        """The image under the one path that every backup reads: a hard link, nothing is copied."""
        link = self._setting.trial / "source" / "guest.raw"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        os.link(self._setting.image(number), link)
        return link

    def _image_of(self, number: int, image: Path, tip: int) -> GuestImage:
        return GuestImage(number, image, self._setting.image(max(number - 1, 0)), tip)

    def _aside(self, peer: Peer) -> Path:
        return self._setting.trial / f"{peer.name}.before"

    def _table(self, task: str, number: int) -> dict[str, Measurement]:
        guest, row = self._setting.guest, self._setting.rows[number]
        return {
            peer.name: Measurement(guest, task, row, number, peer.name, self._versions[peer.name])
            for peer in self._peers
        }

    def _leave_out(self, peer: Peer, into: Measurement, failure: CommandError) -> None:
        say(f"{peer.name} failed and is left out from here on: {failure}")
        into.note = f"failed: {str(failure)[-300:]}"
        self._peers.remove(peer)


def _warm_all(peer: Peer, state: Path, at: GuestImage) -> None:
    """Bring what the peer will read into the page cache, the image last."""
    for place in (state, *([at.previous] if peer.needs_previous else []), at.image):
        warm(place)


def say(text: str) -> None:
    """Tell the user at once."""
    print(f"run: {text}", flush=True)
