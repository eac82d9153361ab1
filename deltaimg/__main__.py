# SPDX-License-Identifier: Apache-2.0
"""`python -m deltaimg` is the command `deltaimg`, which begins here as well."""

from __future__ import annotations

import signal

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # Until the command has a handler of its own, CTRL-C ends it at once, and not with a traceback of what is being imported.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from deltaimg.cli import main

if __name__ == "__main__":
    main()
