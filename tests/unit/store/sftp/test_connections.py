# SPDX-License-Identifier: Apache-2.0
"""How a server is found, who it must be, and what is said where there is no connection."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deltaimg.errors import HostNotVerified, PermissionDenied, StoreError, StoreUnavailable
from deltaimg.store.open import open_store
from deltaimg.store.sftp.address import parse_sftp_address
from deltaimg.store.sftp.session import SessionLimits
from deltaimg.store.sftp.store import SftpStore
from tests.support.components import requires_root
from tests.support.sshd import HOST, SshServer, make_key, ssh_server


@contextmanager
def opened(location: str, limits: SessionLimits | None = None) -> Iterator[SftpStore]:
    store = SftpStore(parse_sftp_address(location), limits=limits)
    try:
        yield store
    finally:
        store.close()


def refuse(location: str, kind: type[StoreError]) -> StoreError:
    """Return the error of the first call to a store."""
    with opened(location) as store, pytest.raises(kind) as caught:
        store.get("config")
    return caught.value


@pytest.fixture
def client(sshd: SshServer) -> Iterator[SshServer]:
    """The server, whose client's files may be changed."""
    known = sshd.known_hosts.read_text()
    yield sshd
    sshd.known_hosts.write_text(known)
    sshd.configure_client()


# -- who the server is -------------------------------------------------------------------------------------------------


def test_another_host_key_than_the_known_one_is_refused_with_file_and_line(client: SshServer, tmp_path: Path) -> None:
    other = make_key(tmp_path / "other")
    client.known_hosts.write_text(f"# a remark\n\nbackup.example {other}[127.0.0.1]:{client.port} {other}")
    error = refuse(client.url(), HostNotVerified)
    assert f"{client.known_hosts}, line 4" in str(error)
    assert "ssh-ed25519 SHA256:" in str(error)
    assert "ssh-keygen -R" in str(error.hint)


def test_an_unknown_host_key_is_never_accepted(client: SshServer) -> None:
    for content in ("", "this is no known_hosts file\n|1|x|y ssh-ed25519 AAAA\n"):
        client.known_hosts.write_text(content)
        for extra in ("", "Host *\n StrictHostKeyChecking no", "Host *\n UserKnownHostsFile none"):
            client.configure_client(extra)
            error = refuse(client.url(), HostNotVerified)
            assert "SHA256:" in str(error)
            assert "is in none of" in str(error)
    assert client.known_hosts.read_text() == content, "nothing was added"


def test_a_revoked_host_key_is_refused(client: SshServer) -> None:
    known = client.known_hosts.read_text()
    client.known_hosts.write_text(f"{known}@revoked * {known.split(' ', 1)[1]}")
    assert f"revoked in {client.known_hosts}, line 2" in str(refuse(client.url(), HostNotVerified))


def test_hashed_names_and_other_files_of_known_hosts_are_read(client: SshServer, tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(client.known_hosts)], check=True, capture_output=True)
    assert "127.0.0.1" not in client.known_hosts.read_text()
    with opened(client.url(tmp_path / "a")) as store:
        assert store.put("x", [b"1"]) == 1
    client.known_hosts.rename(tmp_path / "elsewhere")
    client.configure_client(f"Host *\n  UserKnownHostsFile {tmp_path}/missing {tmp_path}/elsewhere")
    with opened(client.url(tmp_path / "a")) as store:
        assert store.get("x") == b"1"


def test_a_key_that_is_known_for_the_address_is_not_accepted_for_a_name(client: SshServer) -> None:
    client.configure_client(f"Host by-name\n  HostName localhost\n  Port {client.port}\n")
    refuse("sftp://by-name/srv", HostNotVerified)


# -- who we are --------------------------------------------------------------------------------------------------------


def test_a_key_that_the_server_does_not_accept_is_said(client: SshServer, tmp_path: Path) -> None:
    make_key(tmp_path / "stranger")
    shutil.move(client.home / ".ssh" / "id_ed25519", tmp_path / "mine")
    try:
        client.configure_client(f"Host *\n  IdentityFile {tmp_path}/stranger")
        error = refuse(f"sftp://nobody@127.0.0.1:{client.port}/srv", PermissionDenied)
        assert f"nobody@127.0.0.1:{client.port}" in str(error)
        client.configure_client(f"Host *\n  IdentityFile {tmp_path}/missing")
        assert "missing" in str(refuse(client.url(), PermissionDenied))
        client.configure_client("Host *\n  Port many")
        assert "Port" in str(refuse(client.url(), PermissionDenied))
    finally:
        shutil.move(tmp_path / "mine", client.home / ".ssh" / "id_ed25519")


def test_a_key_of_an_agent_is_used(client: SshServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(prefix="deltaimg-agent-") as folder:
        socket_path = f"{folder}/agent"
        agent = subprocess.Popen(["ssh-agent", "-D", "-a", socket_path], stdout=subprocess.DEVNULL)
        try:
            while not os.path.exists(socket_path):
                time.sleep(0.01)
            monkeypatch.setenv("SSH_AUTH_SOCK", socket_path)
            key = client.home / ".ssh" / "id_ed25519"
            subprocess.run(["ssh-add", "-q", str(key)], check=True)
            shutil.move(key, tmp_path / "mine")
            (client.home / ".ssh" / "config").write_text("")
            with opened(f"sftp://127.0.0.1:{client.port}{tmp_path}/a") as store:
                assert store.put("x", [b"1"]) == 1
        finally:
            agent.kill()
            agent.wait()
            if (tmp_path / "mine").exists():
                shutil.move(tmp_path / "mine", key)


def test_no_shell_is_needed_and_a_folder_that_is_closed_to_the_user_is_named(tmp_path: Path) -> None:
    """The login is of a user whose shell is `nologin`, and who may write to nothing but one folder."""
    requires_root()
    extra = "Match User nobody\n  ForceCommand internal-sftp\n  PermitTTY no"
    with ssh_server(tmp_path / "server", extra=extra) as server, server.reached():
        for each in (*reversed(server.root.parents[: len(server.root.parents) - 2]), server.root):
            each.chmod(each.stat().st_mode | 0o711)
        (server.root / "theirs").mkdir(mode=0o755)
        (server.root / "ours").mkdir()
        os.chown(server.root / "ours", 65534, 65534)
        with opened(f"sftp://nobody@{HOST}{server.root}/ours/repository") as store:
            assert store.put("maps/a", [b"1"]) == 1
            assert [each.name for each in store.list("")] == ["maps/a"]
        theirs = f"sftp://nobody@{HOST}{server.root}/theirs/repository"
        with opened(theirs) as store, pytest.raises(PermissionDenied, match="theirs/repository"):
            store.put("maps/a", [b"1"])


def test_a_chroot_is_enough(tmp_path: Path) -> None:
    requires_root()
    # No folder above a chroot may be writable for others, as /tmp is.
    with tempfile.TemporaryDirectory(prefix="deltaimg-chroot-", dir="/run") as chroot:
        os.chmod(chroot, 0o755)
        os.mkdir(f"{chroot}/backup")
        extra = f"ChrootDirectory {chroot}\nForceCommand internal-sftp"
        with ssh_server(tmp_path / "server", extra=extra) as server, server.reached():
            with opened(f"sftp://{HOST}/backup/repository") as store:
                store.put("maps/a", [b"1"])
                store.replace("maps/a", [b"2"])
                store.move("maps/a", "quarantine/maps/a")
                assert [each.name for each in store.list("")] == ["quarantine/maps/a"]
            with opened(f"sftp://{HOST}/./backup/repository") as store:
                assert store.get("quarantine/maps/a") == b"2", "a login begins at the root of a chroot"
        assert Path(chroot, "backup/repository/quarantine/maps/a").read_bytes() == b"2"


# -- the way there -----------------------------------------------------------------------------------------------------


def test_jump_hosts_of_the_configuration_are_used(client: SshServer, tmp_path: Path) -> None:
    with ssh_server(tmp_path / "jump") as jump:
        (jump.folder / "authorized_keys").write_text((client.folder / "authorized_keys").read_text())
        with open(client.known_hosts, "a") as known:
            known.write(jump.known_hosts.read_text())
        for proxy in ("way", f"root@127.0.0.1:{jump.port}", f"way,127.0.0.1:{jump.port}"):
            client.configure_client(
                f"Host {HOST}\n  ProxyJump {proxy}\nHost way\n  HostName 127.0.0.1\n  Port {jump.port}\n"
                f"Host *\n  IdentityFile {client.home}/.ssh/id_ed25519"
            )
            with opened(client.url(tmp_path / "a")) as store:
                store.replace("x", [proxy.encode()])
                assert jump.find_children(), "the way leads through the jump host"
                assert store.get("x") == proxy.encode()
        client.known_hosts.write_text(f"[127.0.0.1]:{client.port} {(client.folder / 'host_key.pub').read_text()}")
        assert str(jump.port) in str(refuse(client.url(), HostNotVerified)), "the jump host is verified as well"
    client.configure_client(f"Host {HOST}\n  ProxyJump 127.0.0.1:{jump.port}\n")
    assert f"jump host 127.0.0.1:{jump.port}" in str(refuse(client.url(), StoreUnavailable))


def test_a_host_that_is_not_there_is_said_at_once(sshd: SshServer) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    started = time.monotonic()
    assert "refuses the connection" in str(refuse(f"sftp://127.0.0.1:{port}/x", StoreUnavailable))
    assert "cannot be resolved" in str(refuse("sftp://no-such-host.invalid/x", StoreUnavailable))
    assert time.monotonic() - started < 20


def test_a_host_that_never_answers_is_given_up(sshd: SshServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        location = f"sftp://127.0.0.1:{silent.getsockname()[1]}/x"
        with opened(location, SessionLimits(connect_s=0.5)) as store, pytest.raises(StoreUnavailable) as caught:
            store.get("config")
    assert "does not answer" in str(caught.value)


def test_what_speaks_no_ssh_and_what_offers_no_sftp_is_said(tmp_path: Path) -> None:
    with ssh_server(tmp_path / "server", subsystem="/nonexistent/sftp-server") as server, server.reached():
        assert "offers no SFTP" in str(refuse(server.url(), StoreUnavailable))


# -- lines that die ----------------------------------------------------------------------------------------------------

QUICK = SessionLimits(connect_s=2.0, keepalive_s=0.25, answer_s=60.0, reconnect_s=1.5)


def test_a_dead_line_ends_in_an_error(tmp_path: Path) -> None:
    with ssh_server(tmp_path / "server") as server, server.reached(), opened(server.url(), QUICK) as store:
        store.put("x", [b"1"])
        frozen = [server.process.pid, *server.find_children()]
        for each in frozen:
            os.kill(each, signal.SIGSTOP)
        started = time.monotonic()
        try:
            with pytest.raises(StoreUnavailable):
                store.get("x")
            assert time.monotonic() - started < 15
        finally:
            for each in frozen:
                os.kill(each, signal.SIGCONT)
        assert store.get("x") == b"1", "once the line is back, so is the store"


def test_a_server_that_is_alive_and_answers_no_request_is_given_up(tmp_path: Path) -> None:
    limits = SessionLimits(keepalive_s=0.5, answer_s=1.0)
    with (
        ssh_server(tmp_path / "server", subsystem="/usr/lib/openssh/sftp-server") as server,
        server.reached(),
        opened(server.url(), limits) as store,
    ):
        store.put("x", [b"1"])
        found = subprocess.run(["pgrep", "-x", "sftp-server"], capture_output=True, text=True).stdout.split()
        [pid] = {int(each) for each in found} & set(server.find_children())
        os.kill(pid, signal.SIGSTOP)
        try:
            with pytest.raises(StoreUnavailable, match="did not answer for 1 seconds"):
                store.get("x")
        finally:
            os.kill(pid, signal.SIGCONT)


def test_a_server_that_is_restarted_is_connected_to_again(tmp_path: Path) -> None:
    with ssh_server(tmp_path / "server") as server, server.reached(), opened(server.url()) as store:
        store.put("x", [b"1"])
        server.stop()
        server.start()
        assert store.get("x") == b"1"


def test_a_missing_package_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from deltaimg.errors import StoreUnusable
    from deltaimg.store import open as opening

    monkeypatch.setattr(opening, "find_spec", lambda name: None)
    with pytest.raises(StoreUnusable, match="needs asyncssh") as caught:
        open_store("sftp://host/x")
    assert "pip install 'deltaimg[sftp]'" in str(caught.value.hint)
