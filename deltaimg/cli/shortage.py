# SPDX-License-Identifier: Apache-2.0
"""Errors that mean that the system grants too little: memory, threads, open files, the size of a file."""

from __future__ import annotations

import errno
from collections.abc import Iterator

from deltaimg.cli.terminal import Terminal
from deltaimg.errors import DeltaimgError, OutOfResources

_KIND_OF_ERRNO = {
    errno.ENOMEM: "memory",
    errno.EMFILE: "open files",
    errno.ENFILE: "open files",
    errno.EFBIG: "file size",
}
_KIND_OF_TEXT = (
    ("start new thread", "threads"),
    ("failed to map segment", "memory"),
    ("Cannot allocate memory", "memory"),
    ("Too many open files", "open files"),
)
"""What errors without a number say: those of the thread module and of the dynamic linker."""
_LIBRARY_BYTES = 96 << 20
"""Of address space, that numpy and others take when they are loaded: measured, and a tenth more."""
_LESS_MEMORY = {"backup": "run with --match-memory 16M --delta-memory 16M --threads 1"}


def check_address_space(command: str) -> None:
    """Raise OutOfResources where libraries could not even be loaded: one of them ends the process then, with a riddle."""
    import mmap

    try:
        mmap.mmap(-1, _LIBRARY_BYTES, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=0).close()
    except OSError as error:
        raise OutOfResources("memory", f"deltaimg {command}") from error


def find_shortage(error: BaseException, command: str) -> OutOfResources | None:
    """Return the error to report if `error` is caused by too low a limit; it names the stage of the command, or the command."""
    for each in _causes(error):
        if isinstance(each, OutOfResources):
            kind = each.what
        else:
            found = _find_kind(each)
            if found is None:
                continue
            kind = found
        advice = _LESS_MEMORY.get(command, "run with --threads 1") if kind == "memory" else None
        where = str(error) if isinstance(error, DeltaimgError) and each is not error else None
        task = getattr(error, "task", None) or Terminal.stage or f"deltaimg {command}"
        return OutOfResources(kind, where or task, advice=advice)
    return None


def _find_kind(error: BaseException) -> str | None:
    """Return what there is too little of, None if it is something else that failed."""
    if isinstance(error, MemoryError):
        return "memory"
    if isinstance(error, OSError) and error.errno is not None:
        if error.errno == errno.EFBIG and not _limits_files():
            return None
        return _KIND_OF_ERRNO.get(error.errno)
    if isinstance(error, (RuntimeError, ImportError, OSError)):
        return next((kind for text, kind in _KIND_OF_TEXT if text in str(error)), None)
    return None


def _limits_files() -> bool:
    """Whether this process may only write files of a limited size."""
    from resource import RLIM_INFINITY, RLIMIT_FSIZE, getrlimit

    return getrlimit(RLIMIT_FSIZE)[0] != RLIM_INFINITY


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and what it was raised from."""
    met: set[int] = set()  # an error may be raised from itself
    while error is not None and id(error) not in met:
        met.add(id(error))
        yield error
        error = error.__cause__
