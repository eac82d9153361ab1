# SPDX-License-Identifier: Apache-2.0
"""Where an export is, as users write it (the NBD project's doc/uri.md).

    nbd://host/export                          port 10809; without a name, the server's default export
    nbd://[2001:db8::7]:10810/vm1              an IPv6 address, another port
    nbd+unix:///vm1?socket=/run/vm1.sock       a socket of this host

Bytes that cannot stand in a URL, such as spaces, are written as %XX (RFC 3986).
"""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, unquote, urlsplit

from msgspec import Struct

from deltaimg.errors import UsageError

USUAL_PORT = 10809
MAX_NAME_BYTES = 4096
"""Of an export, by the protocol."""
_FORM = "write nbd://host:port/export, or nbd+unix:///export?socket=PATH"
_SCHEME = re.compile(r"nbds?(\+[a-z]+)?://|nbd:", re.IGNORECASE)


class NbdAddress(Struct, frozen=True):
    """An export of a server."""

    location: str
    """As the user named it."""
    export: str
    """Its name; empty for the server's default one."""
    host: str = ""
    port: int = USUAL_PORT
    socket_path: str | None = None
    """Of a socket of this host, instead of host and port."""

    @property
    def server(self) -> str:
        """The server, for messages."""
        if self.socket_path is not None:
            return self.socket_path
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def is_nbd_address(text: str) -> bool:
    """Return whether a text is meant to be the address of an export, valid or not."""
    return _SCHEME.match(text) is not None


def parse_nbd_address(location: str) -> NbdAddress:
    """Return what an address means; raises UsageError where it is not valid, or of a form that is not known."""
    try:
        url = urlsplit(location)
        host, port, user = url.hostname, url.port, url.username
    except ValueError as error:
        raise UsageError(f"{location}: is no valid address: {error}", hint=_FORM) from error
    scheme = url.scheme.lower()
    if scheme in ("nbds", "nbds+unix"):
        hint = "lead it through SSH: ssh -N -L 10809:localhost:10809 HOST, and nbd://localhost/"
        raise UsageError(f"{location}: NBD over TLS is not supported", hint=hint)
    if scheme not in ("nbd", "nbd+unix") or "://" not in location:
        raise UsageError(f"{location}: is no form of address that deltaimg knows", hint=_FORM)
    if user is not None or url.fragment:
        raise UsageError(f"{location}: users and '#' have no meaning here", hint=_FORM)
    export = unquote(url.path.removeprefix("/"), errors="surrogateescape")
    if "\0" in export or len(export.encode(errors="surrogateescape")) > MAX_NAME_BYTES:
        raise UsageError(f"{location}: names no possible export", hint=_FORM)
    if scheme == "nbd+unix":
        return NbdAddress(location, export, socket_path=_find_socket(location, url.netloc, url.query))
    if not host or url.query or port == 0:
        problem = "names no host" if not host else "'?' has no meaning here" if url.query else "has no valid port"
        raise UsageError(f"{location}: {problem}", hint=_FORM)
    return NbdAddress(location, export, host, port or USUAL_PORT)


def _find_socket(location: str, netloc: str, query: str) -> str:
    """Return the path of the socket that an address names; raises UsageError."""
    found = parse_qsl(query, keep_blank_values=True, errors="surrogateescape")
    if netloc or len(found) != 1 or found[0][0] != "socket" or not found[0][1] or "\0" in found[0][1]:
        raise UsageError(f"{location}: names no socket", hint=_FORM)
    return found[0][1]
