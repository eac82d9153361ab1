# SPDX-License-Identifier: Apache-2.0
"""Which guests a backup has paused: one that stays so, since backup and guard were both killed, is resumed by the next.

The command that pauses a guest first writes the name of the backup's process to a file of this host (`host_files`), and the one
that resumes it removes that file. A guest that is paused and has no such file, or that of a process that may be alive, was
paused by another, and stays so.
"""

from __future__ import annotations

import os
import shlex
from contextlib import suppress
from hashlib import blake2b

from deltaimg.domains.interface import Domain
from deltaimg.processes import is_named_dead, name_own_process
from deltaimg.repo.host_files import find_folder, open_folder, read_file

_MAX_BYTES = 256


def add_marks(domain: Domain) -> tuple[str, str]:
    """Return the commands of a domain that pause and resume it, and note that; as they are where nothing can be noted."""
    try:
        with open_folder(makes=True):
            path = shlex.quote(os.path.join(find_folder(), _name_mark(domain)))
    except OSError:
        return domain.pause, domain.resume
    return f"echo {name_own_process()} >{path}; {domain.pause}", f"{domain.resume} && rm -f {path}"


def was_left_paused(domain: Domain) -> bool:
    """Return whether a backup that is known to be dead has paused a domain, and has not resumed it."""
    with suppress(OSError), open_folder(makes=False) as folder:
        mark = read_file(folder, _name_mark(domain), _MAX_BYTES) or b""
        return is_named_dead(mark.decode(errors="replace").strip())
    return False


def _name_mark(domain: Domain) -> str:
    """Return the name of the file; hypervisors may have domains of one name."""
    return f"paused-{blake2b(domain.pause.encode(errors='surrogateescape'), digest_size=8).hexdigest()}"
