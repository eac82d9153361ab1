# SPDX-License-Identifier: Apache-2.0
"""The disks of a Xen domain: how its configuration file writes one, and how `xl list -l` prints them.

    [key=value|flag,]* [target, [format, [vdev, [access]]]], [key=value|flag,]* [target=target]

Parameters without "=" take the first place that is still free; `target=` takes the rest of the text. Old forms have prefixes
(`phy:`, `file:`, `tap:aio:`), which are dropped, and `vdev:cdrom`.

Source  xl-disk-configuration(5), and the scanner of libxlu, of Xen 4.17; libxl_types.idl for what `xl list -l` prints.
"""

from __future__ import annotations

import re

import msgspec
from msgspec import Struct, field

from deltaimg.domains.interface import FORMATS, DomainDisk
from deltaimg.errors import GuestUnusable

_IGNORED_PREFIX = re.compile(r"(?:tapdisk|tap2?|aio|ioemu|file|phy):")
_FORMAT_PREFIX = re.compile(r"(raw|qcow2?|vhd):")
_SCRIPT_PREFIX = re.compile(r"(iscsi|e?nbd|drbd):")
_ACCESSES = ("", "r", "ro", "w", "rw")
_FORMATS = ("", "raw", "qcow", "qcow2", "vhd", "qed", "empty")


class _XlDisk(msgspec.Struct):
    """A disk as `xl list -l` prints it; what has its default is not there."""

    vdev: str = ""
    pdev_path: str | None = None
    format: str = ""
    script: str | None = None
    backend_domid: int = 0
    backend_domname: str | None = None
    removable: int = 0
    is_cdrom: int = 0


class _XlCreation(msgspec.Struct):
    name: str = ""


class _XlConfig(msgspec.Struct):
    c_info: _XlCreation
    disks: tuple[_XlDisk, ...] = ()


class _XlDomain(msgspec.Struct):
    config: _XlConfig


class _Parsed(Struct):
    """What is known of a disk so far."""

    named: dict[str, str] = field(default_factory=dict)
    is_cdrom: bool = False
    has_prefix: bool = False
    """Of the old form: it has no format among its positional parameters."""


def parse_disk(specification: str, subject: str) -> DomainDisk:
    """Return the disk that an entry of `disk = [ ... ]` describes; raises GuestUnusable."""
    parsed = _Parsed()
    rest = specification.lstrip()
    while rest:
        if rest.startswith("target="):
            parsed.named["target"] = rest.removeprefix("target=")
            break
        rest = _take_prefix(rest, parsed)
        word, _, rest = rest.partition(",")
        rest = rest.lstrip()
        key, equals, value = word.partition("=")
        if equals:
            _set_named(parsed, key, value.strip())
        elif word.strip() == "cdrom":
            parsed.is_cdrom = True
        elif not re.fullmatch(r"(?:no-)?(?:discard|colo)|direct-io-safe|(?:un)?trusted", word.strip()):
            _set_positional(parsed, word, specification, subject)
    if not parsed.named.get("vdev"):
        raise GuestUnusable(subject, f"its disk '{specification[:60]}' says not what the guest calls it")
    named = parsed.named
    return _make_disk(
        named["vdev"],
        named.get("target", ""),
        script=named.get("script", ""),
        backend="" if named.get("backend") in (None, "0", "Domain-0") else named["backend"],
        is_removable=parsed.is_cdrom,
        format_=named.get("format", ""),
    )


def parse_list(text: bytes, subject: str) -> tuple[str, tuple[DomainDisk, ...]]:
    """Return the name and the disks of the domain that `xl list -l NAME` printed; raises GuestUnusable."""
    try:
        domains = msgspec.json.decode(text, type=list[_XlDomain] | _XlDomain)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise GuestUnusable(subject, f"what xl prints of it cannot be read: {error}") from error
    if isinstance(domains, list) and len(domains) != 1:
        raise GuestUnusable(subject, f"xl lists {len(domains)} domains of that name")
    config = domains[0].config if isinstance(domains, list) else domains.config
    disks = tuple(
        _make_disk(
            each.vdev,
            each.pdev_path or "",
            script=each.script or "",
            backend=each.backend_domname or (str(each.backend_domid) if each.backend_domid else ""),
            is_removable=bool(each.is_cdrom or each.removable),
            format_=each.format,
        )
        for each in config.disks
    )
    return config.c_info.name, disks


def _take_prefix(text: str, parsed: _Parsed) -> str:
    """Drop the prefixes of the old form from where a target begins."""
    if "target" in parsed.named:
        return text
    while True:
        if match := _IGNORED_PREFIX.match(text):
            pass
        elif match := _FORMAT_PREFIX.match(text):
            parsed.named["format"] = match[1]
        elif match := _SCRIPT_PREFIX.match(text):
            parsed.named["script"] = f"block-{match[1]}"
        else:
            return text
        parsed.has_prefix = True
        text = text[match.end() :]


def _set_named(parsed: _Parsed, key: str, value: str) -> None:
    if key == "devtype":
        parsed.is_cdrom = value == "cdrom"
    else:
        parsed.named[key] = value


def _set_positional(parsed: _Parsed, word: str, specification: str, subject: str) -> None:
    """Give a parameter without a key the first place that is free."""
    named = parsed.named
    if "target" not in named:
        named["target"] = word
    elif not parsed.has_prefix and "format" not in named and not (not named["target"] and ":" in word):
        _check_word(word, _FORMATS, specification, subject)
        named["format"] = word
    elif "vdev" not in named:
        vdev, _, kind = word.partition(":")
        named.setdefault("format", "")
        named["vdev"] = vdev
        parsed.is_cdrom |= kind == "cdrom"
    elif "access" not in named:
        _check_word(word, _ACCESSES, specification, subject)
        named["access"] = word
    else:
        raise GuestUnusable(subject, f"its disk '{specification[:60]}' has too many parameters")


def _check_word(word: str, known: tuple[str, ...], specification: str, subject: str) -> None:
    if word.strip() not in known:
        raise GuestUnusable(
            subject, f"its disk '{specification[:60]}' has '{word[:20]}' where {', '.join(known[1:])} is expected"
        )


def _make_disk(vdev: str, target: str, *, script: str, backend: str, is_removable: bool, format_: str) -> DomainDisk:
    problem = ""
    if script:
        problem = f"is found by a script ({script}), not by a path of this host"
    elif backend:
        problem = f"is served by domain {backend}, not by this one"
    elif not target:
        problem = "has no target"
    path = None if problem else target if target.startswith("/") else f"/dev/{target}"
    return DomainDisk(vdev, path, problem, is_removable=is_removable, format=FORMATS.get(format_.strip(), ""))
