# SPDX-License-Identifier: Apache-2.0
"""Thirty days of a database guest, one after another: the tip restored beside a full with the same content, and each
snapshot compared with the guest's image by `cmp`.

Reads   the images that `guests.py` kept, then the changes of the days after them, applied in place to a copy.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from guest.changes import apply_changes
from keepers import Deltaimg
from peer import IMAGE_NAME, GuestImage

from measuring.campaign import Setting, say
from measuring.files import are_equal, remove
from measuring.own_rows import back_up, restore_once
from measuring.process import CommandError
from measuring.results import Measurement


def run_deep(setting: Setting, peer: Deltaimg) -> list[Measurement]:
    """Back up all days, restore the tip and a full with its content in turns, then every snapshot once."""
    image = setting.trial / "deep.raw"
    states = {"tip": setting.trial / "deep-tip", "full": setting.trial / "deep-full"}
    for state in states.values():
        peer.prepare(state)
    last = 0
    for last in replay(setting, image):
        back_up(peer, states["tip"], image, last)
        say(f"deep: day {last} backed up")
    back_up(peer, states["full"], image, 0)
    found = {
        name: Measurement(setting.guest, "restore", "deep", last, f"deltaimg-{name}", peer.version()) for name in states
    }
    for _ in range(setting.runs):
        for name, state in states.items():
            restore_once(setting, peer, found[name], state, image)
    found["tip"].note = _describe(peer, states["tip"])
    every = Measurement(setting.guest, "restore", "deep-nights", last, peer.name, peer.version())
    for number in replay(setting, image):
        every.equal.append(_is_equal(setting, peer, states["tip"], GuestImage(number, image, image, last)))
    for place in (image, *states.values()):
        remove(place)
    return [*found.values(), every]


def replay(setting: Setting, image: Path) -> Iterator[int]:
    """Yield each day's number once `image` holds the guest as it was then."""
    for number in range(len(setting.rows)):
        copy = ["cp", "--sparse=always", "--reflink=auto", str(setting.image(number)), str(image)]
        subprocess.run(copy, check=True)
        yield number
    number = len(setting.rows)
    while (changes := setting.image(number).with_suffix(".changes")).exists():
        apply_changes(changes, image)
        yield number
        number += 1


def _is_equal(setting: Setting, peer: Deltaimg, state: Path, at: GuestImage) -> int:
    """Restore one snapshot, untimed, and compare all of it."""
    target = setting.trial / "target"
    remove(target)
    target.mkdir(parents=True)
    command = peer.restore(state, target, at)
    environment = {**os.environ, **command.environment}
    done = subprocess.run(command.argv, check=False, env=environment, capture_output=True, text=True)
    is_equal = done.returncode == 0 and are_equal(peer.restored(target), at.image)
    if not is_equal:
        say(f"deep: snapshot {at.number} was not restored equal: {done.stderr[-500:]}")
    remove(target)
    return int(is_equal)


def _describe(peer: Deltaimg, state: Path) -> str:
    """What `show` says about restoring the tip."""
    command = peer.on(state, "show", f"{IMAGE_NAME}@latest")
    environment = {**os.environ, **command.environment}
    done = subprocess.run(command.argv, check=False, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise CommandError(f"{command}: exit {done.returncode}\n{done.stderr[-2000:]}")
    said = json.loads(done.stdout)
    return f"deltas up to {said['depth']} deep, {said['read_amplification']} bytes decoded for each byte of data"
