# SPDX-License-Identifier: Apache-2.0
"""The program qemu-img."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import Final

from deltaimg.text import as_text
from deltaimg.threads import delaying_interruption

PROGRAM: Final = "qemu-img"


class QemuImgFailure(Exception):
    """It cannot do something; in words."""


def run_qemu_img(*arguments: str) -> bytes:
    """Run qemu-img to its end and return what it prints; raises QemuImgFailure with what it said."""
    if shutil.which(PROGRAM) is None:
        raise QemuImgFailure(f"{PROGRAM} is not installed: apt install qemu-utils")
    try:
        # It is never cut off in the middle of a change, by a signal from the terminal neither.
        with delaying_interruption():
            done = subprocess.run(
                [PROGRAM, *arguments],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                env=os.environ | {"LC_ALL": "C"},
                check=False,
                start_new_session=True,
            )
    except OSError as error:
        raise QemuImgFailure(f"{PROGRAM} cannot be started: {os.strerror(error.errno or 0)}") from error
    if done.returncode != 0:
        said = as_text(done.stderr.decode(errors="replace").strip())
        raise QemuImgFailure(f"{PROGRAM}: {said.rpartition('}' + chr(39) + ': ')[2] or done.returncode}")
    return done.stdout
