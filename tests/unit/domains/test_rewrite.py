# SPDX-License-Identifier: Apache-2.0
"""Paths in configurations are replaced as wholes, and nothing else is."""

from __future__ import annotations

import json

from deltaimg.domains.rewrite import move_path, rewrite_paths
from tests.support.guests import read_captured


def test_a_path_moves_by_itself_or_with_its_folder() -> None:
    moves = {"/dev/vg0": "/dev/vg1", "/dev/vg0/root": "/srv/root.raw", "/srv/": "/mnt/"}
    assert move_path("/dev/vg0/data", moves) == "/dev/vg1/data"
    assert move_path("/dev/vg0/root", moves) == "/srv/root.raw"
    assert move_path("/srv/a/b", moves) == "/mnt/a/b"
    assert move_path("/dev/vg00/data", moves) == "/dev/vg00/data"


def test_whole_paths_are_replaced_in_xml() -> None:
    before = read_captured("virsh-dumpxml.xml")
    after = rewrite_paths(before.encode(), {"/dev/vg0/web1-root": "/dev/vg1/a&b", "/srv/images/web1": "/x"}).decode()
    assert after == before.replace("/dev/vg0/web1-root", "/dev/vg1/a&amp;b")


def test_images_of_ceph_are_named_without_their_scheme_in_xml() -> None:
    before = read_captured("virsh-dumpxml.xml")
    moved = rewrite_paths(before.encode(), {"rbd:pool/vm": "rbd:other/vm"}).decode()
    assert moved == before.replace("name='pool/vm'", "name='other/vm'")
    assert rewrite_paths(before.encode(), {"rbd:pool/vm": "/srv/vm.raw"}).decode() == before
    assert move_path("rbd:pool/vm", {"rbd:pool": "rbd:other"}) == "rbd:other/vm"


def test_paths_are_exchanged_at_once() -> None:
    text = b"disk = [ 'phy:/dev/vg/a,xvda,w', '/dev/vg/b,,xvdb', '/dev/vg/a-old,,xvdc' ] # /dev/vg/a\n"
    after = rewrite_paths(text, {"/dev/vg/a": "/dev/vg/b", "/dev/vg/b": "/dev/vg/a"})
    assert after == b"disk = [ 'phy:/dev/vg/b,xvda,w', '/dev/vg/a,,xvdb', '/dev/vg/a-old,,xvdc' ] # /dev/vg/b\n"


def test_json_stays_json() -> None:
    before = read_captured("xl-list.json")
    after = rewrite_paths(before.encode(), {"/dev/vg/web1-data": '/srv/a"b\\c'})
    assert json.loads(after)[0]["config"]["disks"][1]["pdev_path"] == '/srv/a"b\\c'
    assert rewrite_paths(before.encode(), {}) == before.encode()
