# SPDX-License-Identifier: Apache-2.0
"""Files without a name: they disappear with the process, however it ends."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress


def open_unnamed(folder: str | None = None) -> int:
    """Return the descriptor of a new file in `folder`, the system's own for temporary files if None; raises OSError."""
    with suppress(OSError):  # Not every file system can: then it has a name for a moment.
        return os.open(folder or tempfile.gettempdir(), os.O_TMPFILE | os.O_RDWR | os.O_EXCL | os.O_CLOEXEC, 0o600)
    descriptor, path = tempfile.mkstemp(prefix=".deltaimg-", dir=folder)
    os.unlink(path)
    return descriptor
