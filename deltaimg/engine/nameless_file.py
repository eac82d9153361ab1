# SPDX-License-Identifier: Apache-2.0
"""Files without a name: they are gone with the process, whatever ends it."""

from __future__ import annotations

import os
import tempfile


def open_nameless(folder: str | None = None) -> int:
    """Return the descriptor of a new file in `folder`, the system's own for temporary files if None; raises OSError."""
    descriptor, path = tempfile.mkstemp(prefix=".deltaimg-", dir=folder)
    os.unlink(path)
    return descriptor
