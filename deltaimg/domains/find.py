# SPDX-License-Identifier: Apache-2.0
"""Find a guest: ask Xen (`xl`) and libvirt (`virsh`), or read a configuration file.

Xen     `xl list -l NAME` has the disks of a domain that runs; `/etc/xen/NAME.cfg` is its configuration, where that is of this
        domain, and what xl printed where there is none. A domain that does not run is read from that file.
libvirt `virsh dumpxml NAME` has both, of a domain that runs or does not.

A domain that runs is stopped for the moment in which its disks are frozen: `xl pause`, `virsh suspend`. One that is stopped
already stays so.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess

from msgspec.structs import replace

from deltaimg.domains.interface import MAX_CONFIG_BYTES, Domain, DomainDisk
from deltaimg.domains.libvirt import parse_xml
from deltaimg.domains.xl_config import parse_xl_config
from deltaimg.domains.xl_disk import parse_list
from deltaimg.errors import GuestUnusable

XL_FOLDER = "/etc/xen"
_LIMIT_S = 60
_RUNNING, _PAUSED = ("running", "idle", "in shutdown"), "paused"
"""States of a libvirt domain: in which it may write, and in which it waits to be resumed."""


def find_domain(name: str) -> Domain:
    """Return the guest of this name; raises GuestUnusable where there is none."""
    if not name or name.startswith("-") or not name.isprintable():
        raise GuestUnusable(name[:60], "is no name of a guest")
    has_xl, has_virsh = (shutil.which(each) is not None for each in ("xl", "virsh"))
    if has_xl and (found := _find_in_xen(name)) is not None:
        return found
    if has_virsh and (xml := _run("virsh", "dumpxml", name)) is not None:
        found_name, disks = parse_xml(_decode(xml, name), name)
        return _add_commands(Domain(found_name, disks, xml))
    asked = [each for each, is_there in (("xl", has_xl), ("virsh", has_virsh)) if is_there]
    problem = (
        f"is known neither to {' nor to '.join(asked)}"
        if len(asked) > 1
        else f"is not known to {asked[0]}"
        if asked
        else ""
    )
    raise GuestUnusable(
        name,
        problem or "cannot be looked for: neither xl nor virsh is installed",
        hint="'xl list' and 'virsh list --all' list guests; --guest-config FILE reads a configuration file",
    )


def read_domain(path: str) -> Domain:
    """Return the guest that a configuration file describes: XML of libvirt, JSON of `xl list -l`, or as xl reads it.

    Raises:
        GuestUnusable: it cannot be read, or is none.
    """
    try:
        with open(path, "rb") as file:
            config = file.read(MAX_CONFIG_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = os.strerror(error.errno or 0) if isinstance(error, OSError) else "no possible path"
        raise GuestUnusable(path, f"cannot be read: {reason}") from error
    name, disks = parse_config(config, path)
    return _add_commands(Domain(name, disks, config))


def parse_config(config: bytes, subject: str) -> tuple[str, tuple[DomainDisk, ...]]:
    """Return the name and the disks of the guest that a configuration describes; raises GuestUnusable."""
    text = _decode(config, subject)
    start = text.lstrip()[:1]
    if start == "<":
        return parse_xml(text, subject)
    return parse_list(config, subject) if start in ("[", "{") else parse_xl_config(text, subject)


def _find_in_xen(name: str) -> Domain | None:
    path = os.path.join(XL_FOLDER, f"{os.path.basename(name)}.cfg")
    from_file = _read_if_there(path)
    listed = _run("xl", "list", "-l", name)
    if listed is None:
        return from_file if from_file is not None and from_file.name == name else None
    found_name, disks = parse_list(listed, name)
    config = from_file.config if from_file is not None and from_file.name == found_name else listed
    return _add_commands(Domain(found_name, disks, config))


def _read_if_there(path: str) -> Domain | None:
    if not os.path.exists(path):
        return None
    domain = read_domain(path)
    return replace(domain, pause="", resume="", is_paused=False)


def resume_domain(domain: Domain) -> Domain:
    """Let a domain that is paused continue, and return it so; raises GuestUnusable where it cannot."""
    if _run(*shlex.split(domain.resume)) is None:
        raise GuestUnusable(domain.name, f"is paused, and '{domain.resume}' failed")
    return replace(domain, is_paused=False)


def _add_commands(domain: Domain) -> Domain:
    """Return a domain with the commands that stop it for a moment and let it continue, unless it is off."""
    name = shlex.quote(domain.name)
    if domain.config.lstrip()[:1] == b"<":
        state = (_run("virsh", "domstate", domain.name) or b"").decode(errors="replace").strip()
        commands, is_there = ("virsh suspend", "virsh resume"), state in (*_RUNNING, _PAUSED)
        is_paused = state == _PAUSED
    else:
        state = _find_state_in_xen(domain.name)
        commands, is_there, is_paused = ("xl pause", "xl unpause"), bool(state), "p" in state
    if not is_there:
        return domain
    return replace(domain, pause=f"{commands[0]} {name}", resume=f"{commands[1]} {name}", is_paused=is_paused)


def _find_state_in_xen(name: str) -> str:
    """Return the state of a domain in `xl list`, its last column but one, as `-b----`; nothing where it does not run."""
    lines = (_run("xl", "list", name) or b"").decode(errors="replace").splitlines()
    states = [line.split()[-2] for line in lines[1:] if len(line.split()) >= 6]
    return states[0] if states else ""


def _run(program: str, *arguments: str) -> bytes | None:
    """Return what a program prints; None where it is not there or fails. Raises GuestUnusable where it prints no end."""
    path = shutil.which(program)
    if path is None:
        return None
    try:
        done = subprocess.run(
            [path, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=os.environ | {"LC_ALL": "C"},
            check=False,
            timeout=_LIMIT_S,
            start_new_session=True,
        )
    except subprocess.TimeoutExpired as error:
        raise GuestUnusable(arguments[-1], f"{program} has not answered for {_LIMIT_S} seconds") from error
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None


def _decode(config: bytes, subject: str) -> str:
    if len(config) > MAX_CONFIG_BYTES:
        raise GuestUnusable(subject, f"its configuration has more than {MAX_CONFIG_BYTES >> 20} MiB")
    try:
        return config.decode()
    except UnicodeDecodeError as error:
        raise GuestUnusable(subject, "its configuration is not text in UTF-8") from error
