# SPDX-License-Identifier: Apache-2.0
"""The output of a command as a source: a stream whose end counts only if the command says that it succeeded."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from contextlib import suppress

from deltaimg.errors import CommandFailed, OutOfResources
from deltaimg.image.stream import StreamSource

_PATIENCE_S = 5.0
"""For a command that is no longer wanted to end by itself."""


class CommandSource(StreamSource):
    """What a command writes to its standard output; its standard error is ours.

    Always  the end of the stream is reported only after the command ended with status 0.
    """

    def __init__(self, command: str) -> None:
        """Start `command` in a shell."""
        name = f"command '{_find_program(command)}'"
        try:
            self._process = subprocess.Popen(shell_arguments(command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        except BlockingIOError as error:
            raise OutOfResources("threads", name) from error
        except OSError as error:
            raise CommandFailed(name, f"cannot be started: {os.strerror(error.errno or 0)}") from error
        assert self._process.stdout is not None
        super().__init__(self._process.stdout.fileno(), name)

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Read as of a stream; at its end, wait for the command. Raises CommandFailed if it did not succeed."""
        got = super().read_into(offset, buffer)
        if got < len(buffer):
            self._expect_success()
        return got

    def close(self) -> None:
        """Stop the command if it is at work still."""
        if self._process.stdout is not None:
            # Other parts of a pipe end when no process reads what they write.
            self._process.stdout.close()
        if self._process.poll() is None:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_PATIENCE_S)
            self._process.kill()
        self._process.wait()

    def _expect_success(self) -> None:
        """Wait for the command to end; raises CommandFailed unless it succeeded."""
        status = self._process.wait()
        if status < 0:
            raise CommandFailed(self.path, f"was ended by signal {-status}, so no snapshot was made")
        if status:
            raise CommandFailed(self.path, f"ended with exit status {status}, so no snapshot was made")


def shell_arguments(command: str) -> list[str]:
    """Return how to run a command in a shell: bash, in which a pipe fails with any of its parts; sh where there is none."""
    bash = shutil.which("bash")
    return [bash, "-o", "pipefail", "-c", command] if bash else ["/bin/sh", "-c", command]


def _find_program(command: str) -> str:
    """Return the first word of a command that sets no variable; raises CommandFailed.

    No more than that, as names of sources are kept in the repository, and the rest may hold passwords.
    """
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise CommandFailed("the command", "its quotes do not match") from error
    if not words:
        raise CommandFailed("the command", "is empty")
    return next((word for word in words if "=" not in word), "sh")
