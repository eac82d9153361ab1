# SPDX-License-Identifier: Apache-2.0
"""The program, killed with SIGKILL just before its n-th call of some kinds to the system; n is counted from 0.

An audit hook (PEP 578) of the interpreter counts the ioctls of clones and snapshots, links, which give objects their names,
starts of programs, and commands to a qemu.
"""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

from tests.support.program import command, environment

_HOOK = """
import os, sys
_ioctls = {0x40049409, 0x50009417, 0x5000940F}
_left = int(os.environ.pop("DELTAIMG_TEST_KILL_AT"))
_report = os.environ.pop("DELTAIMG_TEST_REPORT")
_with_children = "DELTAIMG_TEST_KILL_CHILDREN" in os.environ
_seen = []
def _hook(event, arguments):
    if event in ("os.link", "subprocess.Popen", "socket.sendmsg") or (event == "fcntl.ioctl" and arguments[1] in _ioctls):
        _seen.append(event)
        if len(_seen) > _left:
            os.write(os.open(_report, os.O_WRONLY | os.O_CREAT), event.encode())
            if _with_children:
                for child in open(f"/proc/self/task/{os.getpid()}/children").read().split():
                    os.kill(int(child), 9)
            os.kill(os.getpid(), 9)
sys.addaudithook(_hook)
"""


def run_killed_at(number: int, folder: Path, repo: Path, *arguments: object, with_children: bool = False) -> str | None:
    """Run the program and kill it at a call; return which call that was, or None if it ended before. Messages go to a file.

    Args:
        with_children: kill what it has started as well.
    """
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(_HOOK)
    report = folder / "report"
    report.unlink(missing_ok=True)
    variables = environment(repo) | {
        "PYTHONPATH": os.pathsep.join((str(folder), os.getcwd(), os.environ.get("PYTHONPATH", ""))),
        "DELTAIMG_TEST_KILL_AT": str(number),
        "DELTAIMG_TEST_REPORT": str(report),
    }
    if with_children:
        variables["DELTAIMG_TEST_KILL_CHILDREN"] = "1"
    with open(folder / "said", "wb") as said:
        done = subprocess.run(command(*arguments), env=variables, stdout=said, stderr=said, check=False, timeout=300)
    if done.returncode == -signal.SIGKILL:
        return report.read_text()
    assert done.returncode == 0, (folder / "said").read_text()
    return None
