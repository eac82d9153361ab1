# SPDX-License-Identifier: Apache-2.0
"""What the building machine lends to a guest: its apt sources and settings, and commands that fail loudly.

Reads   the machine's own apt sources; no host is ever named here, a guest is built from where the machine installs.
Always  a command that fails raises `CommandError` with the end of its output.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_APT_KEYS = ("Acquire::http::Proxy", "Acquire::https::Proxy", "Acquire::Check-Valid-Until", "Acquire::Check-Date")


class CommandError(RuntimeError):
    """A command of the build ended with an error; the message holds the end of what it printed."""


@dataclass(frozen=True, slots=True)
class AptSources:
    """deb822 texts: the bare release, and the updates and security suites that come on top of it."""

    codename: str
    release: str
    updates: str


def run(command: Sequence[str], *, text_in: str | None = None) -> str:
    """Run a command to its end and return its output, standard error included."""
    pipe, merged = subprocess.PIPE, subprocess.STDOUT
    done = subprocess.run(command, check=False, input=text_in, stdout=pipe, stderr=merged, text=True, errors="replace")
    if done.returncode:
        raise CommandError(f"{' '.join(command)[:300]}: exit {done.returncode}\n{done.stdout[-3000:]}")
    return done.stdout


def os_codename() -> str:
    """The machine's release, `bookworm` for Debian 12."""
    found = re.search(r"^VERSION_CODENAME=(\w+)$", Path("/etc/os-release").read_text(), re.MULTILINE)
    if found is None:
        raise CommandError("/etc/os-release names no VERSION_CODENAME: guests need a Debian machine")
    return found[1]


def apt_sources() -> AptSources:
    """The machine's own sources of its release, split into the bare release and what updates it."""
    codename = os_codename()
    release, updates = "", ""
    for stanza in _stanzas():
        suites = stanza.get("Suites", "").split()
        later = [suite for suite in suites if suite in (f"{codename}-updates", f"{codename}-security")]
        if codename in suites:
            release += _write_stanza(stanza, [codename])
        if later:
            updates += _write_stanza(stanza, later)
    if not release:
        raise CommandError(f"this machine's apt sources have no suite {codename}")
    return AptSources(codename, release, updates)


def apt_options() -> list[str]:
    """`--aptopt` arguments that hand this machine's proxy and date settings on."""
    dump = run(["apt-config", "dump"])
    lines = [line for line in dump.splitlines() if line.startswith(_APT_KEYS)]
    return [f"--aptopt={line.rstrip(';')}" for line in lines]


def _stanzas() -> list[dict[str, str]]:
    """Each source as its deb822 fields, from `.sources` files and one-line `.list` files alike."""
    found: list[dict[str, str]] = []
    folder = Path("/etc/apt/sources.list.d")
    for path in sorted(folder.glob("*.sources")):
        lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
        for block in "\n".join(lines).split("\n\n"):
            fields = dict(line.split(":", 1) for line in block.splitlines() if ":" in line and line[0] != " ")
            found.append({key: value.strip() for key, value in fields.items()})
    for path in [Path("/etc/apt/sources.list"), *sorted(folder.glob("*.list"))]:
        found += _one_line_sources(path.read_text()) if path.exists() else []
    return [stanza for stanza in found if "deb" in stanza.get("Types", "").split()]


def _one_line_sources(text: str) -> list[dict[str, str]]:
    """Fields of lines such as `deb [signed-by=KEY] URI SUITE COMPONENT...`."""
    found = []
    for line in text.splitlines():
        match = re.match(r"deb\s+(?:\[(.*?)\]\s+)?(\S+)\s+(\S+)\s+(.+)", line)
        if match:
            fields = {"Types": "deb", "URIs": match[2], "Suites": match[3], "Components": match[4]}
            key = re.search(r"signed-by=(\S+)", match[1] or "")
            found.append(fields | ({"Signed-By": key[1]} if key else {}))
    return found


def _write_stanza(fields: dict[str, str], suites: list[str]) -> str:
    kept = {"Types": "deb", "URIs": fields["URIs"], "Suites": " ".join(suites), "Components": fields["Components"]}
    if "Signed-By" in fields:
        kept["Signed-By"] = fields["Signed-By"]
    return "".join(f"{key}: {value}\n" for key, value in kept.items()) + "\n"
