# SPDX-License-Identifier: Apache-2.0
"""The process that runs the post-freeze command, whatever becomes of the backup: an error, a signal, kill -9.

It is started before the pre-freeze command, in a session of its own, and waits on a pipe: the backup writes `b` when the
pre-freeze command begins; that writes `p`, its process number and a line feed before it does anything; the backup `e` when it
has ended. The end of the pipe, for whatever reason, says that it is time for the post-freeze command, or to leave where nothing
has begun; a pre-freeze command that still runs is ended first. The guard writes `r` when it is ready, and at last `.` and what
went wrong, in words.

A script of its own that imports nothing of deltaimg:  python -I -S guard.py LIMIT_S SHELL ARGUMENTS...
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress

_PATIENCE_S = 5.0
_OURS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


def main(arguments: list[str]) -> None:
    """Wait for the end of the standard input, and run the command if anything has begun."""
    for number in _OURS:
        # Caught, not ignored: the command gets the usual behaviour back.
        signal.signal(number, lambda *_: None)
    _say("r")
    heard = b""
    while chunk := os.read(0, 64):
        heard += chunk
    running = re.search(rb"p(\d+)\n$", heard)
    if running:
        _end_session(int(running[1]))
    _say("." + (_run(float(arguments[0]), arguments[1:]) if heard else ""))


def _end_session(leader: int) -> None:
    """End a process that leads a session, which is no child of ours, and all that it started there."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + _PATIENCE_S
        with suppress(ProcessLookupError):
            os.killpg(leader, number)
            while time.monotonic() < deadline:
                time.sleep(0.05)
                os.killpg(leader, 0)


def _run(limit_s: float, command: list[str]) -> str:
    """Run the command and return what went wrong; nothing, if nothing did."""
    try:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=2, start_new_session=True)
    except OSError as error:
        return f"cannot be started: {os.strerror(error.errno or 0)}"
    return wait(process, limit_s)


def wait(process: subprocess.Popen[bytes], limit_s: float) -> str:
    """Wait for a process that leads a session; end it after `limit_s`. Return what went wrong; nothing, if nothing did."""
    try:
        status = process.wait(limit_s)
    except subprocess.TimeoutExpired:
        end(process)
        return f"took longer than {limit_s:g} seconds"
    if status < 0:
        return f"was ended by signal {-status}"
    return f"ended with exit status {status}" if status else ""


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process that leads a session, and all that it started there: asked first, then killed."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_PATIENCE_S)
            break


def _say(text: str) -> None:
    with suppress(OSError):
        os.write(1, text.encode())


if __name__ == "__main__":
    main(sys.argv[1:])
