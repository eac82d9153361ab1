# SPDX-License-Identifier: Apache-2.0
"""A Ceph cluster of one node on this machine: a monitor, one OSD on a sparse file, and for some tests its S3 gateway.

`pytest tests/ceph` runs the tests of its images: needs the Debian packages ceph-mon, ceph-osd and ceph-common.
`pytest --s3-server ceph` runs the tests of S3 stores on it in place of SeaweedFS: needs radosgw as well.
"""

from __future__ import annotations

import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.components import requires_program, requires_root
from tests.support.s3_servers import ACCESS_KEY, ADMIN_KEY, SECRET_KEY, S3Server, die_with_parent, find_free_ports

_PROGRAMS = ("ceph-mon", "ceph-osd", "ceph", "ceph-authtool", "monmaptool")
_GATEWAY_PROGRAMS = ("radosgw", "radosgw-admin")
_OSD_BYTES = 10 << 30
_START_S = 60.0

_SETTINGS = """\
[global]
fsid = {fsid}
mon_host = [v2:127.0.0.1:{ports[0]},v1:127.0.0.1:{ports[1]}]
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
auth_cluster_required = cephx
auth_service_required = cephx
auth_client_required = cephx
keyring = {folder}/keyring
run_dir = {folder}/run
admin_socket = {folder}/run/$name.asok
log_file = {folder}/log/$name.log
pid_file = {folder}/run/$name.pid
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 8
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_max_pg_per_osd = 1000
rbd_mtime_update_interval = 1
setuser_match_path = /nonexistent
[mon]
mon_data = {folder}/mon
mon_initial_members = a
mon_data_avail_crit = 1
[osd]
osd_data = {folder}/osd
osd_objectstore = bluestore
bluestore_block_size = {osd_bytes}
osd_memory_target = 939524096
[client.rgw.a]
rgw_frontends = beast endpoint=127.0.0.1:{ports[2]}
rgw_data = {folder}/rgw
"""
_KEYS = (
    ("mon.", "mon", "allow *"),
    ("client.admin", "mon", "allow *", "osd", "allow *", "mgr", "allow *"),
    ("osd.0", "mon", "allow profile osd", "osd", "allow *"),
    ("client.rgw.a", "mon", "allow rw", "osd", "allow rwx"),
)


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster that runs."""

    settings: str
    """The path of its ceph.conf."""
    osd: subprocess.Popen[bytes]
    ports: tuple[int, ...]
    """Two of the monitor, one that is free."""


@contextmanager
def ceph_cluster(folder: Path) -> Iterator[Cluster]:
    """Run a cluster in a folder; skips where that is not possible."""
    requires_root()
    for program in _PROGRAMS:
        requires_program(program)
    daemons: list[subprocess.Popen[bytes]] = []
    ports = find_free_ports(3)
    settings = _lay_out(folder, ports)
    try:
        daemons.append(_start("ceph-mon", "-f", "-c", settings, "-i", "a"))
        _start_osd(folder, settings, daemons)
        yield Cluster(settings, daemons[-1], tuple(ports))
    finally:
        for daemon in reversed(daemons):
            daemon.kill()
            daemon.wait()


@contextmanager
def ceph_s3(folder: Path) -> Iterator[S3Server]:
    """Run a cluster in a folder; what `kill` and `start` of the server concern is its gateway."""
    for program in _GATEWAY_PROGRAMS:
        requires_program(program)
    with ceph_cluster(folder) as cluster:
        settings, port = cluster.settings, cluster.ports[2]
        gateway = S3Server(port, ["radosgw", "-f", "-c", settings, "-n", "client.rgw.a"])
        try:
            gateway.start()
            user = ("--uid=tester", "--display-name=tester", f"--secret={SECRET_KEY}")
            _run("radosgw-admin", "-c", settings, "user", "create", *user, f"--access-key={ACCESS_KEY}")
            # A second key of the same user: what buckets allow whom is not what is tested here.
            _run("radosgw-admin", "-c", settings, "key", "create", *user, f"--access-key={ADMIN_KEY}")
            yield gateway
        finally:
            gateway.kill()


def _lay_out(folder: Path, ports: list[int]) -> str:
    """Write keys, settings and an empty monitor; return the path of the settings."""
    for name in ("mon", "osd", "rgw", "run", "log"):
        (folder / name).mkdir(parents=True)
    fsid = str(uuid.uuid4())
    settings, keyring, map_path = folder / "ceph.conf", folder / "keyring", folder / "monmap"
    settings.write_text(_SETTINGS.format(fsid=fsid, ports=ports, folder=folder, osd_bytes=_OSD_BYTES))
    _run("ceph-authtool", "--create-keyring", str(keyring))
    for name, *capabilities in _KEYS:
        pairs = zip(capabilities[::2], capabilities[1::2], strict=True)
        given = [word for what, allowed in pairs for word in ("--cap", what, allowed)]
        _run("ceph-authtool", str(keyring), "--gen-key", "-n", name, *given)
    addresses = f"[v2:127.0.0.1:{ports[0]},v1:127.0.0.1:{ports[1]}]"
    _run("monmaptool", "--create", "--clobber", "--addv", "a", addresses, "--fsid", fsid, str(map_path))
    _run("ceph-mon", "-c", str(settings), "--mkfs", "-i", "a", "--monmap", str(map_path), "--keyring", str(keyring))
    return str(settings)


def _start_osd(folder: Path, settings: str, daemons: list[subprocess.Popen[bytes]]) -> None:
    """Make the only OSD, start it, and wait until the monitor has seen it."""
    osd = str(uuid.uuid4())
    _run("ceph", "-c", settings, "osd", "new", osd)
    with (folder / "osd" / "block").open("wb") as block:
        block.truncate(_OSD_BYTES)
    _run("ceph-osd", "-c", settings, "-i", "0", "--mkfs", "--osd-uuid", osd, "--keyring", str(folder / "keyring"))
    daemons.append(_start("ceph-osd", "-f", "-c", settings, "-i", "0"))
    end = time.monotonic() + _START_S
    while b"1 up" not in _run("ceph", "-c", settings, "osd", "stat"):
        assert time.monotonic() < end, "the OSD does not come up"
        time.sleep(0.2)


def _start(*command: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=die_with_parent)


def _run(*command: str) -> bytes:
    done = subprocess.run(command, capture_output=True, check=False, timeout=120)
    assert done.returncode == 0, f"{command}: {done.stderr.decode(errors='replace')[-500:]}"
    return done.stdout
