# SPDX-License-Identifier: Apache-2.0
"""The XML of a libvirt domain: its name and its disks.

A disk in Ceph is read through the ceph.conf of this host, whatever monitors and user the XML names.

Source  https://libvirt.org/formatdomain.html#hard-drives-floppy-disks-cdroms
Always  a document type is refused: it could define entities that expand without end, or name files. Nothing else of XML can.
"""

from __future__ import annotations

from xml.etree import ElementTree as ET

from deltaimg.domains.interface import FORMATS, DomainDisk
from deltaimg.errors import GuestUnusable, UsageError
from deltaimg.image.rbd.address import SCHEME, parse_rbd_address

_PATHS = {"file": "file", "block": "dev"}
"""Attributes of `source` that have a path on this host, by the type of a disk."""


def parse_xml(text: str, subject: str) -> tuple[str, tuple[DomainDisk, ...]]:
    """Return the name and the disks of a domain; raises GuestUnusable. `subject` is what messages call it."""
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise GuestUnusable(subject, "its XML has a document type, which no configuration of libvirt has")
    try:
        root = ET.fromstring(text)  # noqa: S314  see above
    except (ET.ParseError, ValueError) as error:
        raise GuestUnusable(subject, f"its XML cannot be read: {error}") from error
    name = (root.findtext("name") or "").strip()
    if root.tag != "domain" or not name:
        raise GuestUnusable(subject, "its XML is not that of a libvirt domain")
    return name, tuple(_read_disk(each, number) for number, each in enumerate(root.findall("devices/disk")))


def _find_path(source: ET.Element, kind: str) -> str | None:
    """Return the path of a disk, or its address in Ceph; None where it has none that this host could read."""
    if kind in _PATHS:
        return source.get(_PATHS[kind])
    if kind != "network" or source.get("protocol") != "rbd":
        return None
    snapshot = source.find("snapshot")
    address = SCHEME + source.get("name", "") + ("" if snapshot is None else f"@{snapshot.get('name', '')}")
    try:
        return parse_rbd_address(address).location
    except UsageError:
        return None


def _read_disk(disk: ET.Element, number: int) -> DomainDisk:
    target, source = disk.find("target"), disk.find("source")
    name = (target.get("dev") if target is not None else None) or f"disk{number}"
    kind = disk.get("type", "file")
    path = _find_path(source, kind) if source is not None else None
    is_removable = disk.get("device", "disk") in ("cdrom", "floppy")
    is_removable |= target is not None and target.get("removable") == "on"
    problem = "" if path else f"is of type {kind}, which this host has no file or device for"
    if kind in _PATHS and not path:
        problem = "has no source"
    is_shared = disk.find("readonly") is not None and disk.find("shareable") is not None
    driver = disk.find("driver")
    format_ = FORMATS.get(driver.get("type", ""), "") if driver is not None else ""
    return DomainDisk(name, path or None, problem, is_removable, is_shared, format_)
