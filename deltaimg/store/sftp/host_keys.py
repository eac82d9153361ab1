# SPDX-License-Identifier: Apache-2.0
"""Which host keys are trusted: those of the known_hosts files, and never one that a server shows for the first time.

Read are the files that ~/.ssh/config names (UserKnownHostsFile, GlobalKnownHostsFile), else those that ssh reads. Lines are
compared by the name of the host alone, so that a key which is known for an address is not accepted for a name. A key that is
not trusted is described with the file and the line that has another one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import asyncssh
from msgspec import Struct

from deltaimg.errors import HostNotVerified

_USER_FILES = ("~/.ssh/known_hosts", "~/.ssh/known_hosts2")
_SYSTEM_FILES = ("/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2")
_MAX_BYTES = 64 << 20
"""Of a known_hosts file: more is none."""


class _Line(Struct, frozen=True):
    """A line of a known_hosts file."""

    path: str
    number: int
    text: str

    def parse(self) -> asyncssh.SSHKnownHosts | None:
        """Return what it says; None for one that ssh would skip as well."""
        try:
            return asyncssh.import_known_hosts(self.text)
        except ValueError:
            return None

    def __str__(self) -> str:
        return f"{self.path}, line {self.number}"


class KnownHosts:
    """The known_hosts files, read when a server shows its key."""

    def __init__(self, user_files: Sequence[str] | None, system_files: Sequence[str] | None) -> None:
        """Args: user_files, system_files: those that a configuration names; None for the usual ones."""
        chosen = (*(_USER_FILES if user_files is None else user_files), *(system_files or _SYSTEM_FILES))
        self.paths = tuple(os.path.expanduser(each) for each in chosen)

    def match(self, host: str, _address: str, port: int | None) -> Sequence[Sequence[object]]:
        """Return what is trusted and what is revoked of a host, as asyncssh takes it."""
        known = asyncssh.SSHKnownHosts()
        for line in self._read_lines():
            if line.parse() is not None:
                known.load(line.text)
        trusted, authorities, revoked, *rest = known.match(host, "", port)
        # asyncssh refuses a revoked key without a word to its caller: one that is not trusted is explained below.
        kept = [key for key in trusted if key not in revoked]
        return (kept, authorities, revoked if authorities else (), *rest)

    def explain(self, host: str, port: int | None, key: asyncssh.SSHKey) -> HostNotVerified:
        """Return the error for a key that is not trusted."""
        shown = f"its host key, {key.get_algorithm()} {key.get_fingerprint()},"
        name = f"[{host}]:{port}" if port else host
        others = []
        for line in self._read_lines():
            known = line.parse()
            if known is None:
                continue
            trusted, _, revoked, *_ = known.match(host, "", port)
            if key in revoked:
                return HostNotVerified(
                    name, f"{shown} is revoked in {line}", hint="ask who runs the server for its new key"
                )
            if trusted:
                others.append(line)
        if others:
            return HostNotVerified(
                name,
                f"{shown} is not the one in {' and '.join(map(str, others[:3]))}",
                hint="another host answers, or the server was set up again: only if who runs it confirms this fingerprint, "
                f"remove the old key with \"ssh-keygen -R '{name}' -f {others[0].path}\", and connect once with ssh",
            )
        return HostNotVerified(
            name,
            f"{shown} is in none of {', '.join(self.paths)}",
            hint="compare the fingerprint with that of the server, and connect once with ssh to add it; for no user to answer, "
            f"'ssh-keyscan' prints keys of a host for known_hosts, where this one is called {name}",
        )

    def _read_lines(self) -> Iterator[_Line]:
        for path in self.paths:
            try:
                with open(path, encoding="utf-8", errors="replace") as file:
                    lines = file.read(_MAX_BYTES).splitlines()
            except OSError:
                continue
            for number, text in enumerate(lines, 1):
                if text.strip() and not text.lstrip().startswith("#"):
                    yield _Line(path, number, text)
