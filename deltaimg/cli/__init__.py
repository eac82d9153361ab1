# SPDX-License-Identifier: Apache-2.0
"""The command `deltaimg`: parse, call the Python interface, print. The only place that prints or exits."""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
import warnings
from contextlib import suppress
from types import FrameType
from typing import NoReturn

from deltaimg.cli.output import flush_output, lose_output, set_up_output
from deltaimg.cli.shortage import find_shortage
from deltaimg.cli.terminal import format_line, print_error
from deltaimg.errors import DeltaimgError, Interrupted, OutOfResources, ReaderGone
from deltaimg.threads import delaying_interruption, end_pauses, last_raised, raise_when_safe

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_EXIT_DEFECT = 70
_ONCE_MORE_S = 0.01
_SAME_S = 0.5
"""Signals that follow the first so soon are the same one: timeout(1) sends it to the process and then to its group, a shell
whose terminal is closed to its jobs once more, systemd SIGTERM and SIGHUP."""
_PATIENCE_S = 2.0
_DAY_S = 86400


def main() -> NoReturn:
    """Run the command line and exit with its code. No traceback ever reaches a user who did not ask for one."""
    _use_utf8()
    set_up_output()
    warnings.showwarning = _show_warning
    sys.unraisablehook = _raise_once_more
    _start_lightly()
    _check_time_zone()
    try:
        for number in _SIGNALS:
            # What a parent made us ignore stays ignored: `nohup`, and SIGINT of background jobs.
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, _interrupt)
        _exit(_run())
    except Interrupted as error:
        # The signal came while an earlier error was being reported. There is one at most: see `_interrupt`.
        _exit(error.exit_code)
    except MemoryError:
        # Not even the error could be reported as others are.
        os.write(2, b"deltaimg: there is not enough memory\n")
        _exit(OutOfResources.exit_code)


def _exit(code: int) -> NoReturn:
    """End at once. All is closed by now; what Python does at its end costs time, and crashes after some errors.

    An error's traceback may hold memory that a buffer was mapped to: freeing both in the wrong order ended in SIGSEGV.
    """
    with delaying_interruption():  # for good: the command has its exit code
        lose_output()
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):
                stream.flush()
        os._exit(code)


def _use_utf8() -> None:
    """Start again in UTF-8 mode where the locale has another encoding: names of images are UTF-8 everywhere.

    What is printed keeps the encoding of the locale.
    """
    encoding = sys.getfilesystemencoding()
    if encoding.lower() not in ("utf-8", "utf8") and not sys.flags.utf8_mode and sys.executable:
        variables = {"PYTHONIOENCODING": encoding} | os.environ
        with suppress(OSError):
            os.execve(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]], variables)  # noqa: S606


def _start_lightly() -> None:
    """Leave out what a single command has no use for: it costs an unchanged image a twentieth of its time."""
    # The collector would look through all that the imports make, many times over; memory is freed without it.
    gc.set_threshold(500_000)
    # numpy's linear algebra starts a thread for each core that waits for work by running in circles.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    """Print what a library warns of as we print our own warnings."""
    print(f"deltaimg: warning: {format_line(str(message))}", file=sys.stderr)


def _check_time_zone() -> None:
    """Use UTC where TZ names a zone a day or more away from it, which Python's dates refuse."""
    if max(abs(time.timezone), abs(time.altzone)) >= _DAY_S:
        print(
            f"deltaimg: warning: TZ={os.environ.get('TZ', '')!a} is not a valid time zone; using UTC", file=sys.stderr
        )
        os.environ["TZ"] = "UTC0"
        time.tzset()


def _run() -> int:
    """Run the command, report what it raised, and return the exit code."""
    try:
        from deltaimg.cli.app import run

        exit_code = run()
        flush_output()
    except (DeltaimgError, Interrupted) as error:
        return _report(error)
    except Exception as error:
        if interruption := last_raised():
            # Libraries in C make other errors of it: numpy.fromfile a TypeError, where it comes while a type is looked up.
            return _report(interruption)
        if shortage := find_shortage(error, ""):
            return _report(shortage)
        if os.environ.get("DELTAIMG_DEBUG"):
            raise
        print(f"deltaimg: internal error: {type(error).__name__}: {format_line(str(error))}", file=sys.stderr)
        print("  hint: this is a defect; DELTAIMG_DEBUG=1 shows where. Please report it", file=sys.stderr)
        return _EXIT_DEFECT
    return exit_code


def _interrupt(number: int, _frame: FrameType | None) -> None:
    """Turn the first signal into an orderly end; a second one, a little later, ends the process at once."""
    for each in _SIGNALS:
        if signal.getsignal(each) is not signal.SIG_IGN:
            signal.signal(each, _disregard)
    end_pauses()
    _await_second()
    raise_when_safe(Interrupted(number))


def _disregard(*_: object) -> None:
    """Do nothing. Not SIG_IGN, which programs that are started meanwhile, to undo what was frozen, would inherit."""


def _await_second() -> None:
    signal.signal(signal.SIGALRM, _heed_second)
    signal.setitimer(signal.ITIMER_REAL, _SAME_S)


def _heed_second(*_: object) -> None:
    """Let the next signal end the process at once, whatever it is at."""
    for each in _SIGNALS:
        if signal.getsignal(each) is _disregard:
            signal.signal(each, signal.SIG_DFL)
    signal.signal(signal.SIGALRM, _say_how_to_end)
    signal.setitimer(signal.ITIMER_REAL, _PATIENCE_S - _SAME_S)


def _say_how_to_end(*_: object) -> None:
    """Say what a slow line needs time for: a pack that is half sent, a lock that is given back."""
    os.write(
        2, b"\ndeltaimg: interrupted, ending in order; interrupt once more to end at once, which loses nothing stored\n"
    )


def _raise_once_more(ignored: sys.UnraisableHookArgs) -> None:
    """Raise an interruption a moment later where Python ignores errors: in `__del__`, in the callback of a weak reference."""
    if not isinstance(ignored.exc_value, Interrupted):
        sys.__unraisablehook__(ignored)
        return
    number = ignored.exc_value.signal_number

    def raise_again(*_: object) -> None:
        _await_second()
        raise_when_safe(Interrupted(number))

    signal.signal(signal.SIGALRM, raise_again)
    signal.setitimer(signal.ITIMER_REAL, _ONCE_MORE_S)


def _report(error: DeltaimgError | Interrupted) -> int:
    """Print what went wrong, as far as the standard error can be written, and return the exit code."""
    lose_output()
    if not isinstance(error, ReaderGone):
        print_error(error, as_json="--json" in sys.argv[1:])
        flush_output()
    return error.exit_code
