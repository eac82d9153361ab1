# SPDX-License-Identifier: Apache-2.0
"""The XML of libvirt, and what must not be in it."""

from __future__ import annotations

import pytest

from deltaimg.domains.interface import Domain, choose_disks
from deltaimg.domains.libvirt import parse_xml
from deltaimg.errors import GuestUnusable, UsageError
from tests.support.guests import read_captured


def read_domain() -> Domain:
    return Domain(*parse_xml(read_captured("virsh-dumpxml.xml"), "web1"), b"")


def test_what_virsh_prints_is_read() -> None:
    domain = read_domain()
    assert domain.name == "web1"
    found = {each.name: (each.path, each.is_removable, each.is_shared) for each in domain.disks}
    assert found == {
        "vda": ("/dev/vg0/web1-root", False, False),
        "vdb": ("/srv/images/web1-data.raw", False, False),
        "vdc": ("/srv/images/web1-swap.raw", False, False),
        "vdd": ("/srv/images/shared.raw", False, True),
        "vde": ("rbd:pool/vm", False, False),
        "hda": ("/srv/iso/install.iso", True, False),
    }


def test_the_format_of_a_disk() -> None:
    text = read_captured("virsh-dumpxml.xml").replace("type='raw'", "type='qcow2'", 1)
    assert [each.format for each in parse_xml(text, "web1")[1]] == ["qcow2", "", "", "", "", ""]


@pytest.mark.parametrize(
    ("written", "path"),
    [
        ("name='pool/space/vm'>", "rbd:pool/space/vm"),
        ("name='pool/vm'><snapshot name='monday'/>", "rbd:pool/vm@monday"),
        ("name='vm'>", None),
        (">", None),
    ],
)
def test_disks_in_ceph(written: str, path: str | None) -> None:
    text = read_captured("virsh-dumpxml.xml", {"name='pool/vm'>": written})
    assert parse_xml(text, "web1")[1][4].path == path


def test_which_disks_are_left_out() -> None:
    text = read_captured("virsh-dumpxml.xml", {"protocol='rbd'": "protocol='iscsi'"})
    with pytest.raises(GuestUnusable, match="its disk vde is of type network") as caught:
        choose_disks(Domain(*parse_xml(text, "web1"), b""), [])
    assert caught.value.hint == "--exclude-disk vde leaves it out"
    disks, left_out = choose_disks(read_domain(), ["vde", "/srv/images/web1-swap.raw"])
    assert disks == {"vda": "/dev/vg0/web1-root", "vdb": "/srv/images/web1-data.raw"}
    assert {each.name: each.reason for each in left_out} == {
        "vdc": "excluded",
        "vdd": "read-only, and shared",
        "vde": "excluded",
        "hda": "removable",
    }
    with pytest.raises(UsageError, match="no disk 'vdx'"):
        choose_disks(read_domain(), ["vdx"])


def test_a_disk_that_is_marked_is_left_out() -> None:
    text = read_captured("virsh-dumpxml.xml", {"web1-swap.raw": "[NOBAK] swap.raw", "type='network'": "type='block'"})
    disks, left_out = choose_disks(Domain(*parse_xml(text, "web1"), b""), ["vde"])
    assert "vdc" not in disks
    assert "its name begins with [NOBAK]" in {each.reason for each in left_out}


BOMB = """<!DOCTYPE domain [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>
<domain><name>&b;</name></domain>"""


@pytest.mark.parametrize(
    "text",
    [
        BOMB,
        '<!DOCTYPE d SYSTEM "file:///etc/passwd"><domain><name>x</name></domain>',
        "<domain>",
        "<network><name>x</name></network>",
        "<domain></domain>",
        "<domain><name>&undefined;</name></domain>",
        "",
    ],
)
def test_what_is_no_domain_is_refused(text: str) -> None:
    with pytest.raises(GuestUnusable, match="XML"):
        parse_xml(text, "web1")
