# SPDX-License-Identifier: Apache-2.0
"""A connection to a Ceph cluster, as ceph.conf and the environment of Ceph's own programs say.

CEPH_CONF     the path of the configuration; /etc/ceph/ceph.conf and others, as librados has them, by default
CEPH_ARGS     options such as `--id backup`, `--keyring FILE`, `-m HOST`
CEPH_KEYRING  the path of the file with the user's key

Always  it ends: where ceph.conf sets no limits of time, these do.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from msgspec import Struct

from deltaimg.image.rbd.library import Library, RbdFailure, load_library

_LIMITS_S: Final = {"client_mount_timeout": 30, "rados_mon_op_timeout": 60, "rados_osd_op_timeout": 120}
"""To connect; for an answer of a monitor; for one of an OSD, which may have to be replaced by another meanwhile."""
_NO_CACHE: Final = {"rbd_cache": "false"}
"""Everything is read once, in pieces that are larger than any cache makes them."""
_VALUE_BYTES: Final = 1 << 14
_FORMS: Final = {"--id": "user", "--user": "user", "-n": "name", "--name": "name", "-c": "conf", "--conf": "conf"}
_ENDED: Final = (errno.ETIMEDOUT, errno.ENOTCONN, errno.ESHUTDOWN)
"""Of requests that were given up: the cluster did not answer, or forgot this client."""
_REFUSED: Final = (errno.EPERM, errno.EACCES)
_HINT_OF_USER: Final = "CEPH_ARGS='--id NAME' names another user, CEPH_KEYRING the file with its key"
_HINT_OF_CLUSTER: Final = "CEPH_CONF names the configuration; see whether 'rbd ls POOL' works for this user"


class Arguments(Struct, frozen=True):
    """What CEPH_ARGS says that librados leaves to whoever uses it."""

    name: str = "client.admin"
    conf: str | None = None


def read_arguments(text: str) -> Arguments:
    """Return what a value of CEPH_ARGS names; librados reads all else of it."""
    found: dict[str, str] = {}
    words = iter(text.split())
    for word in words:
        option, equals, value = word.partition("=")
        if option in _FORMS:
            found[_FORMS[option]] = value if equals else next(words, "")
    name = found.get("name") or f"client.{found.get('user') or 'admin'}"
    return Arguments(name, found.get("conf") or None)


@contextmanager
def open_pool(pool: str, namespace: str) -> Iterator[Any]:
    """Connect, and return an I/O context of a pool; all is closed at the end. Raises RbdFailure."""
    library = load_library()
    rados, ffi = library.rados, library.ffi
    arguments = read_arguments(os.environ.get("CEPH_ARGS", ""))
    made = ffi.new("rados_t *")
    check(rados.rados_create2(made, b"ceph", arguments.name.encode(), 0), "no client of Ceph can be made")
    cluster = made[0]
    try:
        _connect(library, cluster, arguments)
        context = ffi.new("rados_ioctx_t *")
        status = rados.rados_ioctx_create(cluster, os.fsencode(pool), context)
        if status == -errno.ENOENT:
            raise RbdFailure(f"the cluster has no pool {pool}", hint="'ceph osd pool ls' lists its pools")
        check(status, f"pool {pool} cannot be used")
        try:
            rados.rados_ioctx_set_namespace(context[0], os.fsencode(namespace))
            yield context[0]
        finally:
            rados.rados_ioctx_destroy(context[0])
    finally:
        rados.rados_shutdown(cluster)


def check(status: int, problem: str) -> int:
    """Return what a function of Ceph returned; raises RbdFailure where that is an error.

    Args:
        problem: what could not be done, in words.
    """
    if status >= 0:
        return status
    number = -status
    if number in _REFUSED:
        hint = "the user needs 'profile rbd' for its monitors and this pool: 'ceph auth get client.NAME'"
        raise RbdFailure(f"{problem}: Ceph does not allow it to this user", hint=hint)
    if number in _ENDED:
        raise RbdFailure(f"{problem}: the cluster did not answer in time", hint="'ceph -s' says in what state it is")
    raise RbdFailure(f"{problem}: {os.strerror(number)}")


def _connect(library: Library, cluster: Any, arguments: Arguments) -> None:
    rados, null = library.rados, library.ffi.NULL
    usual = {name: _get(library, cluster, name) for name in _LIMITS_S}
    conf = null if arguments.conf is None else os.fsencode(arguments.conf)
    is_configured = rados.rados_conf_read_file(cluster, conf) == 0
    check(rados.rados_conf_parse_env(cluster, null), "CEPH_ARGS cannot be read")
    limits = {name: str(limit) for name, limit in _LIMITS_S.items() if _get(library, cluster, name) == usual[name]}
    for name, value in {**_NO_CACHE, **limits}.items():
        check(rados.rados_conf_set(cluster, name.encode(), value.encode()), f"{name} of Ceph cannot be set")
    status = rados.rados_connect(cluster)
    if status < 0:
        limit, keyring = (_get(library, cluster, name) for name in ("client_mount_timeout", "keyring"))
        raise _explain(-status, arguments.name, limit, keyring, is_configured=is_configured)


def _explain(number: int, name: str, limit: str, keyring: str, *, is_configured: bool) -> RbdFailure:
    """Return why a cluster could not be connected to.

    Args:
        name: of the user. limit: of time, in seconds. keyring: where the user's key may be, as Ceph has it.
    """
    if number in _ENDED:
        hint = "are its monitors running, and does a firewall let this host pass?"
        return RbdFailure(f"the Ceph cluster did not answer within {limit} seconds", hint=hint)
    if number in _REFUSED:
        return RbdFailure(f"the Ceph cluster does not accept the key of {name}", hint=_HINT_OF_USER)
    if number == errno.ENOENT and not is_configured:
        return RbdFailure("no ceph.conf can be read, which would say where the cluster is", hint=_HINT_OF_CLUSTER)
    keyrings = [path for path in keyring.replace(",", " ").replace(";", " ").split() if path]
    if number == errno.ENOENT and not any(os.access(path, os.R_OK) for path in keyrings):
        return RbdFailure(f"no key of {name} can be read; it would be in {' or '.join(keyrings)}", hint=_HINT_OF_USER)
    if number == errno.ENOENT:
        return RbdFailure("ceph.conf names no monitor of the cluster", hint=_HINT_OF_CLUSTER)
    if number == errno.EINVAL:
        return RbdFailure("ceph.conf names its monitors in a way that leads nowhere", hint=_HINT_OF_CLUSTER)
    return RbdFailure(f"the Ceph cluster cannot be connected to: {os.strerror(number)}", hint=_HINT_OF_CLUSTER)


def _get(library: Library, cluster: Any, name: str) -> str:
    """Return the value of a setting of Ceph; empty where there is none."""
    value = library.ffi.new("char[]", _VALUE_BYTES)
    status = library.rados.rados_conf_get(cluster, name.encode(), value, _VALUE_BYTES)
    return "" if status < 0 else os.fsdecode(library.ffi.string(value))
