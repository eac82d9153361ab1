# SPDX-License-Identifier: Apache-2.0
"""What a command that a signal ended leaves behind, and whether the next run continues from there."""

from __future__ import annotations

from deltaimg.errors import Interrupted

_OUTCOMES = {
    "init": "run it again if the repository cannot be opened",
    "backup": "no snapshot was made; the next run uses what this one has stored",
    "restore": "a file that has its name is complete, but a block device now holds part of the image; the next run starts over",
    "verify": "what this run has verified is not remembered; the next run starts over",
    "forget": "snapshots are either forgotten or unchanged; the next run continues",
    "pin": "the snapshot is either pinned or unchanged",
    "unpin": "the snapshot is either unpinned or unchanged",
    "tag": "the tags are either changed or as they were",
    "prune": "every snapshot is intact; the next run finishes the job",
    "flatten": "every snapshot is intact; the next run continues with those that are not yet flat",
    "parity": "what was protected still is; the next run continues",
    "repair": "what is already repaired stays so; the next run continues",
    "cache": "what is left of the cache is still usable",
    "sync": "snapshots are either copied or not; the next run continues, and does not send again what has arrived",
    "mirror": "the copy is as it was, or the next run continues, or 'deltaimg mirror --recover' undoes what was begun",
    "key": "every key is as it was, or as it was to be; 'deltaimg key list' shows them",
    "signature": "no file was written",
    "delta": "no file was written",
    "patch": "no new file was left behind, but a block device now holds part of the image; the next run starts over",
}
_UNCHANGED = "nothing was changed"


def describe_interruption(signal_number: int, command: str) -> Interrupted:
    """Return the error that says what is left of a run of `command` that this signal ended."""
    return Interrupted(signal_number, _OUTCOMES.get(command, _UNCHANGED))
