# SPDX-License-Identifier: Apache-2.0
"""Disks of Xen domains: every form that xl-disk-configuration(5) shows."""

from __future__ import annotations

import pytest

from deltaimg.domains.xl_disk import parse_disk, parse_list
from deltaimg.errors import GuestUnusable
from tests.support.guests import read_captured

VOLUME, ISO = "/dev/vg/guest-volume", "/srv/image.iso"


@pytest.mark.parametrize(
    "specification",
    [
        "/dev/vg/guest-volume,,hda",
        "/dev/vg/guest-volume,raw,hda,rw",
        "format=raw, vdev=hda, access=rw, target=/dev/vg/guest-volume",
        "raw:/dev/vg/guest-volume,hda,w",
        "phy:/dev/vg/guest-volume,hda,w",
        "tap:aio:/dev/vg/guest-volume,hda,w",
        "vg/guest-volume,,hda,rw,discard",
        "vdev=hda,/dev/vg/guest-volume,backendtype=phy",
    ],
)
def test_every_form_of_a_disk_is_the_same(specification: str) -> None:
    disk = parse_disk(specification, "web1")
    assert (disk.name, disk.path, disk.is_removable) == ("hda", VOLUME, False)


@pytest.mark.parametrize(
    "specification",
    [
        "/srv/image.iso,,hdc,cdrom",
        "/srv/image.iso,,hdc,,cdrom",
        "/srv/image.iso,raw,hdc,devtype=cdrom",
        "format=raw, vdev=hdc, access=ro, devtype=cdrom, target=/srv/image.iso",
        "raw:/srv/image.iso,hdc:cdrom,ro",
    ],
)
def test_every_form_of_a_cdrom_is_the_same(specification: str) -> None:
    disk = parse_disk(specification, "web1")
    assert (disk.name, disk.path, disk.is_removable) == ("hdc", ISO, True)


@pytest.mark.parametrize("specification", [",hdc:cdrom,r", ",,hdc,cdrom", "vdev=hdc,cdrom"])
def test_an_empty_drive_has_no_path(specification: str) -> None:
    disk = parse_disk(specification, "web1")
    assert (disk.name, disk.path, disk.is_removable) == ("hdc", None, True)


@pytest.mark.parametrize(
    ("specification", "format_"),
    [
        ("/a.img,qcow2,xvda", "qcow2"),
        ("vhd:/a.img,xvda,w", "vpc"),
        ("/a,raw,xvda", ""),
        ("format=qcow2,vdev=a,target=/b", "qcow2"),
    ],
)
def test_the_format_of_a_disk(specification: str, format_: str) -> None:
    assert parse_disk(specification, "web1").format == format_


def test_a_target_takes_the_rest() -> None:
    assert parse_disk("vdev=xvda,target=/srv/a,b=c, d.img", "web1").path == "/srv/a,b=c, d.img"


@pytest.mark.parametrize(
    ("specification", "said"),
    [
        ("drbd:web1,xvda,w", "found by a script (block-drbd)"),
        ("format=raw,vdev=xvda,script=block-iscsi,target=iqn.2001-05.com.example", "found by a script"),
        ("vdev=xvda,backend=storage,target=/dev/vg/a", "served by domain storage"),
        ("vdev=xvda", "has no target"),
    ],
)
def test_a_disk_that_is_not_on_this_host_says_why(specification: str, said: str) -> None:
    disk = parse_disk(specification, "web1")
    assert disk.path is None
    assert said in disk.problem


@pytest.mark.parametrize(
    "specification", ["", "/dev/vg/a", "/dev/vg/a,raw", "/a,zip,xvda", "/a,,xvda,x", "/a,,b,w,r,s"]
)
def test_what_is_no_disk_is_refused(specification: str) -> None:
    with pytest.raises(GuestUnusable):
        parse_disk(specification, "web1")


def test_what_xl_prints_is_read() -> None:
    name, disks = parse_list(read_captured("xl-list.json").encode(), "web1")
    assert name == "web1"
    assert [(each.name, each.path) for each in disks] == [
        ("xvda", "/dev/vg/web1-root"),
        ("xvdb", "/dev/vg/web1-data"),
        ("xvdc", "/dev/vg/web1-root"),
    ]


@pytest.mark.parametrize("text", [b"", b"[", b"[]", b"{}", b'[{"config": 5}]', b"\xff", b"[" * 100_000])
def test_what_xl_does_not_print_is_refused(text: bytes) -> None:
    with pytest.raises(GuestUnusable):
        parse_list(text, "web1")
