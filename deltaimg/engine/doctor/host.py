# SPDX-License-Identifier: Apache-2.0
"""What this host can do: the kernel and the native core, memory, permissions, programs, and the extras of this installation.

Reads   what the system says; the programs are looked for, and not run.
"""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from importlib.util import find_spec

from deltaimg import kernels, memory
from deltaimg.engine.doctor.finding import Finding
from deltaimg.errors import describe_installation
from deltaimg.image.rbd.library import RbdFailure, load_library
from deltaimg.model import GIB
from deltaimg.threads import count_workers

_SYSTEM_FOLDERS = "/usr/sbin:/sbin"
_LEAST_MEMORY_BYTES = GIB // 2

_PROGRAMS = (
    ("LVM snapshots", ("lvs", "lvcreate", "lvremove"), "apt install lvm2"),
    ("changes of thin volumes", ("thin_delta", "dmsetup"), "apt install thin-provisioning-tools"),
    ("qcow2 and other formats", ("qemu-nbd", "qemu-img"), "apt install qemu-utils"),
    ("guests of Xen", ("xl",), ""),
    ("guests of libvirt", ("virsh",), "apt install libvirt-clients"),
    ("mirror to other hosts", ("ssh",), "apt install openssh-client"),
)
"""What they are for, their names, and how to install them; nothing, where that is no question of a package alone."""
_EXTRAS = (
    ("sftp", "asyncssh", "repositories on SFTP servers"),
    ("s3", "obstore", "repositories in object storage"),
    ("parity", "pyeclib", "parity by ISA-L"),
    ("qr", "segno", "recovery texts as QR codes"),
    ("plots", "matplotlib", "plots of benchmarks"),
    ("mount", "mfusepy", "snapshots as files of a folder"),
    ("dask", "distributed", "work on a Dask cluster"),
)


def examine_host(cache_folder: str | None) -> list[Finding]:
    """Return what was found of this host. `cache_folder` is where its user's cache is, if there is a place."""
    host = [*_examine_system(), _examine_user(), _examine_cache(cache_folder), *_examine_programs()]
    return [*host, _examine_ceph(), *_examine_extras()]


def _examine_system() -> Iterator[Finding]:
    yield Finding("kernel", True, f"{platform.system()} {platform.release()}, {platform.machine()}")
    is_native = kernels.NAME.startswith("native")
    hint = "" if is_native else "a wheel of this platform has it, and so has an installation with a C compiler"
    yield Finding("native core", is_native, kernels.NAME, hint)
    available = memory.limit_bytes()
    cores = f"{count_workers()} threads"
    is_enough = available >= _LEAST_MEMORY_BYTES
    detail = f"{available / GIB:.1f} GiB for what one structure of a repository may take; {cores}"
    yield Finding("memory", is_enough, detail, "" if is_enough else "large repositories need more")


def _examine_user() -> Finding:
    if os.geteuid() == 0:
        return Finding("permissions", True, "root")
    hint = "as root, or with the groups and capabilities for these"
    return Finding("permissions", False, "not root: no LVM or btrfs snapshots, perhaps no block devices", hint)


def _examine_cache(folder: str | None) -> Finding:
    if folder is None:
        return Finding("cache", False, "this user has no home folder", "--cache-dir names a folder for it")
    place = folder
    while not os.path.isdir(place) and os.path.dirname(place) != place:
        place = os.path.dirname(place)
    free_bytes = shutil.disk_usage(place).free
    is_writable = os.access(place, os.W_OK)
    detail = f"{folder}, {free_bytes / GIB:.1f} GiB free" if is_writable else f"{folder} cannot be written to"
    is_good = is_writable and free_bytes >= GIB
    return Finding("cache", is_good, detail, "" if is_good else "--cache-dir names another folder")


def _examine_programs() -> Iterator[Finding]:
    path = f"{os.environ.get('PATH', '')}:{_SYSTEM_FOLDERS}"
    for name, programs, hint in _PROGRAMS:
        missing = [each for each in programs if shutil.which(each, path=path) is None]
        detail = f"{', '.join(missing)} not installed" if missing else ", ".join(programs)
        yield Finding(name, not missing, detail, hint if missing else "")


def _examine_ceph() -> Finding:
    try:
        load_library()
    except RbdFailure as failure:
        return Finding("images of Ceph", False, "librbd not installed", failure.hint or "")
    return Finding("images of Ceph", True, "librbd")


def _examine_extras() -> Iterator[Finding]:
    for extra, module, purpose in _EXTRAS:
        name, is_there = f"deltaimg[{extra}]", find_spec(module) is not None
        detail = purpose if is_there else f"not installed: {purpose}"
        yield Finding(name, is_there, detail, "" if is_there else describe_installation(name))
