# SPDX-License-Identifier: Apache-2.0
"""Commands that stop what writes to an image, and let it continue: `fsfreeze`, `virsh domfsfreeze`, `xl pause`.

Always  once the pre-freeze command has begun, the post-freeze command runs: after success, an error or a signal, by a process
        that outlives this one where it is killed (`guard`); also where the pre-freeze command fails, which may have done half.
Always  each command has a time limit.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress

from deltaimg.errors import HookFailed, OutOfResources
from deltaimg.freeze import guard
from deltaimg.image.command import shell_arguments
from deltaimg.options.freeze import FreezeOptions
from deltaimg.threads import delaying_interruption

_PRE, _POST = "--pre-freeze", "--post-freeze"
_REPORT_BYTES = 4096
_REPORTING = """(trap '' PIPE; echo "p$$" >&0) 2>/dev/null; exec "$@" </dev/null"""
"""Tells the guard, on the standard input, the number of the process that then becomes a command: before that does anything."""


class Hooks:
    """The two commands of one backup."""

    def __init__(self, options: FreezeOptions, variables: Mapping[str, str]) -> None:
        """Args: variables: for the commands, besides this process's own."""
        self._pre, self._post = options.pre_freeze, options.post_freeze
        self._limit_s = options.hook_limit_s
        self._variables = {**os.environ, **variables}
        self._guard: subprocess.Popen[bytes] | None = None
        self._begun_s: float | None = None
        self.frozen_s = 0.0
        """How long the writers were stopped: from before the first command to the end of the second."""

    @property
    def are_given(self) -> bool:
        """Whether there are any commands."""
        return self._pre is not None or self._post is not None

    def freeze(self) -> None:
        """Run the pre-freeze command; raises HookFailed. `thaw` must be called afterwards, whatever happened."""
        if not self.are_given:
            return
        if self._post is not None:
            self._start_guard(self._post)
        self._begun_s = time.monotonic()
        self._tell_guard("b")
        if self._pre is not None and (problem := self._run(self._pre, is_pre=True)):
            raise HookFailed(_PRE, problem)

    def thaw(self) -> None:
        """Run the post-freeze command, once, if the other one has begun; raises HookFailed."""
        begun_s, self._begun_s = self._begun_s, None
        problem = self._end_guard()
        if begun_s is not None:
            self.frozen_s = time.monotonic() - begun_s
        if problem:
            raise HookFailed(_POST, problem)

    def _start_guard(self, command: str) -> None:
        arguments = [sys.executable, "-I", "-S", guard.__file__, str(self._limit_s), *shell_arguments(command)]
        try:
            with delaying_interruption():
                self._guard = subprocess.Popen(
                    arguments,
                    bufsize=0,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    env=self._variables,
                    start_new_session=True,
                )
        except BlockingIOError as error:
            raise OutOfResources("threads", _POST) from error
        except OSError as error:
            raise HookFailed(_POST, f"cannot be started: {os.strerror(error.errno or 0)}") from error
        assert self._guard.stdout is not None
        if self._guard.stdout.read(1) != b"r":
            raise HookFailed(_POST, "cannot be watched over: the process for that ended")

    def _tell_guard(self, text: str) -> None:
        if self._guard is not None and self._guard.stdin is not None:
            with suppress(BrokenPipeError):
                self._guard.stdin.write(text.encode())

    def _end_guard(self) -> str:
        """Let the guard run its command; return what went wrong."""
        process, self._guard = self._guard, None
        if process is None or self._post is None:
            return ""
        assert process.stdin is not None
        assert process.stdout is not None
        report = b""
        try:
            with suppress(OSError):
                process.stdin.close()
            while chunk := process.stdout.read(_REPORT_BYTES):
                report += chunk
        finally:
            process.stdout.close()
        process.wait()
        if report.startswith(b"."):
            return report[1:].decode(errors="replace")
        # The guard was killed, with its command perhaps: once more is better than not at all.
        return self._run(self._post)

    def _run(self, command: str, *, is_pre: bool = False) -> str:
        """Run a command to its end or its limit; return what went wrong."""
        arguments, stdin = shell_arguments(command), subprocess.DEVNULL
        if is_pre and self._guard is not None and self._guard.stdin is not None:
            arguments = ["/bin/sh", "-c", _REPORTING, "sh", *arguments]
            stdin = self._guard.stdin.fileno()
        try:
            process = subprocess.Popen(arguments, stdin=stdin, stdout=2, env=self._variables, start_new_session=True)
        except OSError as error:
            return f"cannot be started: {os.strerror(error.errno or 0)}"
        try:
            return guard.wait(process, self._limit_s)
        except BaseException:
            guard.end(process)
            raise
        finally:
            if is_pre:
                self._tell_guard("e")
