# SPDX-License-Identifier: Apache-2.0
"""Where a repository is on an SFTP server, as users write it.

    sftp://ann@host/srv/backup        /srv/backup on the server; in a chroot, below its root
    sftp://host:2222/srv/backup       another port; user, port and more may come from ~/.ssh/config as well
    sftp://host/./backup              `backup` in the folder where a login of this user begins
    sftp://host/~/backup              the same
    sftp://ann@[2001:db8::7]/srv      an IPv6 address

Bytes that cannot stand in a URL, such as spaces, are written as %XX (RFC 3986).
"""

from __future__ import annotations

from urllib.parse import unquote_to_bytes, urlsplit

from msgspec import Struct

from deltaimg.errors import UsageError

_FORM = "write sftp://user@host/path, or sftp://user@host:port/path"
_FROM_HOME = (b"/./", b"/~/")


class SftpAddress(Struct, frozen=True):
    """A folder of a server."""

    location: str
    """As the user named it; never with a password."""
    host: str
    """A name, an address, or what ~/.ssh/config calls a host."""
    user: str | None
    """None for that of ~/.ssh/config, or of this process."""
    port: int | None
    """None for that of ~/.ssh/config, or 22."""
    path: bytes
    """Absolute, or relative to the folder where a login begins; without a slash at its end."""

    @property
    def place(self) -> str:
        """User, host and port as far as they were named, for messages."""
        user = "" if self.user is None else f"{self.user}@"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{user}{host}" if self.port is None else f"{user}{host}:{self.port}"


def parse_sftp_address(location: str) -> SftpAddress:
    """Return what an `sftp://` URL means; raises UsageError where it is not valid."""
    try:
        url = urlsplit(location)
        host, port = url.hostname, url.port
    except ValueError as error:
        raise UsageError(f"{_without_password(location)}: is no valid address: {error}", hint=_FORM) from error
    if url.password is not None:
        raise UsageError(
            f"{_without_password(location)}: a password in an address is visible to every user of this host",
            hint="use an agent, or a key file, which ~/.ssh/config may name for this host (IdentityFile)",
        )
    if not host:
        raise UsageError(f"{location}: names no host", hint=_FORM)
    if url.query or url.fragment:
        raise UsageError(f"{location}: '?' and '#' have no meaning here", hint=f"{_FORM}; write %3F and %23 in a path")
    if port == 0 or host.startswith("-"):
        raise UsageError(f"{location}: is no valid address", hint=_FORM)
    user = None if url.username is None else unquote_to_bytes(url.username).decode("utf-8", "surrogateescape")
    if user is not None and (not user or not user.isprintable()):
        raise UsageError(f"{location}: names no valid user", hint=_FORM)
    # Case matters to what ~/.ssh/config calls a host, and urlsplit takes it away.
    start = url.netloc.lower().rindex(host)
    return SftpAddress(location, url.netloc[start : start + len(host)], user, port, _parse_path(location, url.path))


def _parse_path(location: str, text: str) -> bytes:
    path = unquote_to_bytes(text.encode("utf-8", "surrogateescape"))
    from_home = path.startswith(_FROM_HOME)
    pieces = [each for each in path[3 if from_home else 0 :].split(b"/") if each not in (b"", b".")]
    if b"\0" in path or b".." in pieces:
        raise UsageError(f"{location}: a path has no '..' and no zero byte in it", hint=_FORM)
    if not path or (not pieces and path != b"/" and not from_home):
        raise UsageError(f"{location}: names no folder", hint=_FORM)
    if from_home:
        return b"/".join(pieces) or b"."
    return b"/" + b"/".join(pieces)


def _without_password(location: str) -> str:
    """Return a location with what may be a password in it left out."""
    scheme, _, rest = location.partition("://")
    place, slash, path = rest.partition("/")
    user, at, host = place.rpartition("@")
    return f"{scheme}://{user.partition(':')[0]}{at}{host}{slash}{path}"
