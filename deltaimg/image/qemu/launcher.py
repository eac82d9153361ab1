# SPDX-License-Identifier: Apache-2.0
"""Become a server that listens on descriptor 3, and ends with the thread that started it, whatever becomes of that.

A script of its own that imports nothing of deltaimg:  python -I -S launcher.py PARENT SOCKET COMMAND...

Source  prctl(2), PR_SET_PDEATHSIG, which an exec keeps; sd_listen_fds(3).
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
_FIRST_PASSED = 3


def main(parent: int, listening: int, command: list[str]) -> None:
    """Replace this process by the command; raises OSError."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("deltaimg has ended")
    os.dup2(listening, _FIRST_PASSED, inheritable=True)
    variables = {**os.environ, "LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LC_ALL": "C"}
    os.execvpe(command[0], command, variables)  # noqa: S606


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
