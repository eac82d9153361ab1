# SPDX-License-Identifier: Apache-2.0
"""Warnings that lower layers log: of the store above all, which has no `Progress`."""

from __future__ import annotations

import logging
from collections.abc import Callable

LOGGER = logging.getLogger("deltaimg")


class LoggedWarnings(logging.Handler):
    """Passes on each warning, as one line of text, while it is attached."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._warn = warn

    def emit(self, record: logging.LogRecord) -> None:
        """Pass the message of a log record on as a warning."""
        self._warn(record.getMessage())

    def attach(self) -> None:
        """Begin to receive what is logged."""
        LOGGER.addHandler(self)

    def detach(self) -> None:
        """Receive nothing any more."""
        LOGGER.removeHandler(self)
