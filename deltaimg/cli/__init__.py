# SPDX-License-Identifier: Apache-2.0
"""The command `deltaimg`: parse, call the Python interface, print. The only place that prints or exits."""

from __future__ import annotations

import gc
import io
import os
import signal
import sys
from types import FrameType
from typing import NoReturn

from deltaimg.errors import DeltaimgError, Interrupted, OutOfMemory

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_EXIT_DEFECT = 70


def main() -> NoReturn:
    """Run the command line and exit with its code. No traceback ever reaches a user who did not ask for one."""
    _start_lightly()
    for number in _SIGNALS:
        # What a parent made us ignore stays ignored: `nohup`, and SIGINT of background jobs.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)
    for stream in (sys.stdout, sys.stderr):
        # A path may hold bytes that are no text; printing its name must not fail for that.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    sys.exit(_run())


def _start_lightly() -> None:
    """Leave out what a single command has no use for: it costs a quiet night a twentieth of its time."""
    # The collector would look through all that the imports make, many times over; what lives on is freed without it.
    gc.set_threshold(50_000)
    # numpy's linear algebra starts a thread for each core that waits for work by running in circles.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def _run() -> int:
    """Run the command, report what it raised, and return the exit code."""
    try:
        from deltaimg.cli.app import run
        from deltaimg.cli.terminal import flush_output

        run()
        flush_output()
    except DeltaimgError as error:
        return _report(error)
    except MemoryError:
        return _report(OutOfMemory())
    except BrokenPipeError:
        return _end_quietly()
    except Exception as error:
        if os.environ.get("DELTAIMG_DEBUG"):
            raise
        print(f"deltaimg: internal error: {type(error).__name__}: {error}", file=sys.stderr)
        print("  hint: this is a defect; DELTAIMG_DEBUG=1 shows where. Please report it", file=sys.stderr)
        return _EXIT_DEFECT
    return 0


def _interrupt(number: int, _frame: FrameType | None) -> None:
    """Turn the first signal into an orderly end; a second one ends the process at once."""
    for each in _SIGNALS:
        if signal.getsignal(each) is not signal.SIG_IGN:
            signal.signal(each, signal.SIG_DFL)
    raise Interrupted(number)


def _report(error: DeltaimgError) -> int:
    from deltaimg.cli.terminal import print_error

    try:
        print_error(error, as_json="--json" in sys.argv[1:])
        sys.stdout.flush()
    except OSError:
        _drop_output()
    return error.exit_code


def _end_quietly() -> int:
    """Whoever read our output has gone, which is theirs to decide: end as other programs do, by SIGPIPE's number."""
    _drop_output()
    return 128 + signal.SIGPIPE


def _drop_output() -> None:
    """Let what cannot be written go nowhere, so that Python does not complain about it at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
