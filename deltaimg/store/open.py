# SPDX-License-Identifier: Apache-2.0
"""From what users write after `-r` to the store that it means, through a table of schemes.

    /srv/backup, backup, ./s3:backup     a folder of this host
    file:///srv/backup                   the same, as a URL
    sftp://ann@host:2222/srv/backup      a folder of a server that speaks SFTP (`store/sftp/address.py`)
    s3://bucket/prefix?endpoint=…        object storage, with the extra `deltaimg[s3]`; also gs:// and az://

Always  `s3:bucket`, `host:/path` and the like never become folders of that name. A folder with a colon
        in the first part of its name is given as `./s3:bucket`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Final
from urllib.parse import unquote, urlsplit

from deltaimg.errors import StoreUnusable, UsageError
from deltaimg.store.interface import Store
from deltaimg.store.local import LocalStore
from deltaimg.store.other_addresses import suggest_address

Writer = Callable[[], str]
"""Returns who puts objects now, as `file_names.make_temporary_name` takes it."""
OpenStore = Callable[[str, Writer], Store]
"""Returns the store of a location of one scheme, without reading or writing anything; raises UsageError for a location that is
not valid. What a kind of store needs is imported when one is opened."""

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def open_store(location: str, *, writer: Writer = lambda: "") -> Store:
    """Return the store at `location`. Nothing is read or written; raises UsageError where it is no location of a store."""
    if not location or "\0" in location:
        raise UsageError("no repository named" if not location else "the repository's name has a zero byte in it")
    named = _SCHEME.match(location)
    scheme = named[1].lower() if named else ""
    if scheme in SCHEMES:
        return SCHEMES[scheme](location, writer)
    raise UsageError(
        f"{location}: there are no repositories of kind '{scheme}://'",
        hint=_advise(location),
    )


def is_store_address(location: str) -> bool:
    """Return whether a location names a store by a scheme that there is, as `sftp://host/path` does."""
    named = _SCHEME.match(location)
    return named is not None and named[1].lower() in SCHEMES


def _open_folder(location: str, writer: Writer) -> Store:
    first = location.partition("/")[0]
    if ":" in first or location.startswith("\\\\"):
        raise UsageError(
            f"{location}: looks like an address, and is none that a repository can have", hint=_advise(location)
        )
    if first.startswith("~"):
        raise UsageError(
            f"{location}: '~' was not expanded: only a shell does that, and only at the beginning of a word",
            hint=f"write out the path; a folder of this very name is './{location}'",
        )
    return LocalStore(location, writer=writer)


def _open_file_url(location: str, writer: Writer) -> Store:
    """Open a URL as RFC 8089 has it: no host or `localhost`, and an absolute path, whose odd bytes are written as %XX."""
    url = urlsplit(location)
    path = unquote(url.path, errors="surrogateescape")
    if url.netloc not in ("", "localhost") or not path.startswith("/") or url.query or url.fragment or "\0" in path:
        raise UsageError(f"{location}: is no folder of this host", hint="write file:///path, or the path alone")
    return LocalStore(path, writer=writer)


def _open_sftp(location: str, writer: Writer) -> Store:
    from deltaimg.store.sftp.address import parse_sftp_address

    address = parse_sftp_address(location)
    if find_spec("asyncssh") is None:
        raise StoreUnusable("sftp", "asyncssh", "sftp")
    from deltaimg.store.sftp.store import SftpStore

    return SftpStore(address, writer=writer)


def _open_s3(location: str, writer: Writer) -> Store:
    from deltaimg.store.s3 import open_s3

    return open_s3(location, writer)


def _open_google(location: str, writer: Writer) -> Store:
    from deltaimg.store.clouds import open_google

    return open_google(location, writer)


def _open_azure(location: str, writer: Writer) -> Store:
    from deltaimg.store.clouds import open_azure

    return open_azure(location, writer)


def _advise(location: str) -> str:
    """Return what to write in place of a location that is none."""
    if address := suggest_address(location):
        return f"write {address}; a folder of this very name is './{location}'"
    urls = ", ".join(f"{scheme}://" for scheme in SCHEMES if scheme)
    return (
        f"a repository is the path of a folder, or a URL that begins with {urls}; other places have to be mounted; "
        f"a folder of this very name is './{location}'"
    )


SCHEMES: Final[Mapping[str, OpenStore]] = {
    "": _open_folder,
    "file": _open_file_url,
    "sftp": _open_sftp,
    "s3": _open_s3,
    "gs": _open_google,
    "az": _open_azure,
}
"""By what is before `://`, in lower case; empty for a location that is no URL."""
