# SPDX-License-Identifier: Apache-2.0
"""The command `deltaimg`: parse, call the Python interface, print. The only place that prints or exits."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import NoReturn

from deltaimg.errors import DeltaimgError, Interrupted

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_EXIT_DEFECT = 70


def main() -> NoReturn:
    """Run the command line and exit with its code. No traceback ever reaches a user who did not ask for one."""
    for number in _SIGNALS:
        signal.signal(number, _interrupt)
    try:
        from deltaimg.cli.app import app

        app(prog_name="deltaimg")
    except DeltaimgError as error:
        _report(error)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # Whoever read our output has gone; that is theirs to decide. Nothing may be flushed to it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(128 + signal.SIGPIPE)
    except Exception as error:
        if os.environ.get("DELTAIMG_DEBUG"):
            raise
        print(f"deltaimg: internal error: {type(error).__name__}: {error}", file=sys.stderr)
        print("  hint: this is a defect; DELTAIMG_DEBUG=1 shows where. Please report it", file=sys.stderr)
        sys.exit(_EXIT_DEFECT)
    sys.exit(0)


def _interrupt(number: int, _frame: FrameType | None) -> None:
    """Turn the first signal into an orderly end; a second one ends the process at once."""
    for each in _SIGNALS:
        signal.signal(each, signal.SIG_DFL)
    raise Interrupted(number)


def _report(error: DeltaimgError) -> None:
    from deltaimg.cli.terminal import print_error

    print_error(error, as_json="--json" in sys.argv[1:])
