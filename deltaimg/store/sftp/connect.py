# SPDX-License-Identifier: Apache-2.0
"""How a connection to a server is made: as `ssh` makes it, from the same configuration, keys and known hosts.

~/.ssh/config and /etc/ssh/ssh_config are read for host, user, port, keys, agent, jump hosts, proxy command and algorithms.
Always  every host on the way must have a key that a known_hosts file has, whatever StrictHostKeyChecking says.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import cast

import asyncssh
from msgspec import Struct
from msgspec.structs import replace

from deltaimg.errors import HostNotVerified, PermissionDenied, StoreError
from deltaimg.store.sftp.address import SftpAddress
from deltaimg.store.sftp.failures import explain_connect
from deltaimg.store.sftp.host_keys import KnownHosts

_CONFIGS = ("~/.ssh/config", "/etc/ssh/ssh_config")
_CIPHERS = (
    "aes128-gcm@openssh.com,aes256-gcm@openssh.com,chacha20-poly1305@openssh.com,aes128-ctr,aes192-ctr,aes256-ctr"
)
"""The fastest first: with AES-NI the first moves 1.7 times the bytes a second of the third, which is asyncssh's default."""
_SSH_PORT = 22
_MOST_JUMPS = 8
_KEEPALIVES = 4


class _Times(Struct):
    connect_s: float
    keepalive_s: float


async def open_connection(address: SftpAddress, connect_s: float, keepalive_s: float) -> asyncssh.SSHClientConnection:
    """Return a connection to a server, through the jump hosts that its configuration names.

    Args:
        connect_s: how many seconds connecting and logging in may take, for each host on the way.
        keepalive_s: seconds between keep-alives.

    Raises:
        HostNotVerified, PermissionDenied. asyncssh.Error, OSError: all else, for `explain_connect`.
    """
    return await _open(address, _Times(connect_s, keepalive_s), None, _MOST_JUMPS)


async def _open(
    address: SftpAddress, times: _Times, tunnel: asyncssh.SSHClientConnection | None, most_jumps: int
) -> asyncssh.SSHClientConnection:
    """Args: tunnel: a connection to go through; None for what the configuration says."""
    options = _make_options(address, times)
    if tunnel is None and isinstance(options.tunnel, str):
        tunnel = await _open_jumps(address, options.tunnel.split(","), times, most_jumps)
    known = _find_known_hosts(options)
    shown: list[tuple[str, int, asyncssh.SSHKey]] = []

    class Client(asyncssh.SSHClient):
        """Keeps the key of a host that is not trusted, for the message."""

        def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:  # noqa: ARG002
            shown.append((host, port, key))
            return False

    try:
        connection = await asyncssh.connect(
            address.host,
            port=options.port,
            options=options,
            tunnel=tunnel,
            known_hosts=known.match,
            client_factory=Client,
        )
    except BaseException as error:
        if tunnel is not None:
            tunnel.close()
        if isinstance(error, asyncssh.HostKeyNotVerifiable):
            if not shown:
                raise HostNotVerified(
                    address.host, str(error), hint=f"see what 'ssh -v {address.host}' says"
                ) from error
            host, port, key = shown[-1]
            raise known.explain(host, None if port == _SSH_PORT else port, key) from error
        raise
    if tunnel is not None:
        connection.set_tunnel(tunnel)  # which ends with the connection
    return connection


async def _open_jumps(
    address: SftpAddress, jumps: Sequence[str], times: _Times, most_jumps: int
) -> asyncssh.SSHClientConnection | None:
    """Return a connection to the last of some jump hosts, each reached through the one before."""
    if len(jumps) > most_jumps:
        raise StoreError(address.location, "has too many jump hosts", hint="see ProxyJump in ~/.ssh/config")
    tunnel = None
    for each in jumps:
        user, _, rest = each.strip().removeprefix("ssh://").rpartition("@")
        host, port = _split_port(rest)
        jump = replace(address, host=host, user=user or None, port=port)
        try:
            tunnel = await _open(jump, times, tunnel, most_jumps - len(jumps))
        except StoreError:
            raise
        except Exception as error:
            raise explain_connect(address.location, f"jump host {jump.place}", error) from error
    return tunnel


def _split_port(text: str) -> tuple[str, int | None]:
    """Return host and port of `host`, `host:22` or `[2001:db8::7]:22`."""
    host, colon, port = text.rpartition(":")
    if colon and port.isdecimal() and (":" not in host or host.endswith("]")):
        return host.strip("[]"), int(port)
    return text.strip("[]"), None


def _make_options(address: SftpAddress, times: _Times) -> asyncssh.SSHClientConnectionOptions:
    """Return what the configuration files say of a host; raises PermissionDenied where a key cannot be read."""
    given: dict[str, object] = {}
    if address.user is not None:
        given["username"] = address.user
    if address.port is not None:
        given["port"] = address.port
    try:
        options = asyncssh.SSHClientConnectionOptions(
            host=address.host,
            config=[path for each in _CONFIGS if os.access(path := os.path.expanduser(each), os.R_OK)],
            connect_timeout=times.connect_s,
            login_timeout=times.connect_s,
            keepalive_interval=times.keepalive_s,
            keepalive_count_max=_KEEPALIVES,
            **given,
        )
        if options.config.get("Ciphers") is None:
            options = asyncssh.SSHClientConnectionOptions(options, encryption_algs=_CIPHERS)
    except (OSError, ValueError, asyncssh.KeyEncryptionError, asyncssh.KeyImportError) as error:
        raise PermissionDenied(
            address.location,
            f"the configuration of ssh, or a key, cannot be used: {error}",
            hint=f"see what 'ssh -v {address.host}' says",
        ) from error
    return options


def _find_known_hosts(options: asyncssh.SSHClientConnectionOptions) -> KnownHosts:
    user = cast("list[str] | None", options.config.get("UserKnownHostsFile"))
    system = cast("list[str] | None", options.config.get("GlobalKnownHostsFile"))
    return KnownHosts(user, system)
