# SPDX-License-Identifier: Apache-2.0
"""The lines on which object storage is reached: TLS and its authorities, proxies, and all of them under a limit."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from deltaimg.store.paced_relay import PacedRelay
from tests.support.images import make_incompressible_image, make_mixed_image
from tests.support.program import command, deltaimg, environment, fail, succeed
from tests.support.s3_servers import S3Server, find_free_ports
from tests.support.slow_line import SlowLine
from tests.support.tls import Authority, tls_server

IMAGE_BYTES = 3_000_001
LIMITS = [(), ("--bwlimit", "100M")]
"""No limit, and one that slows nothing down: bytes go through a relay."""


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.make(tmp_path / "authority")


def name_place(server: S3Server, port: int, **options: object) -> str:
    bucket, _, prefix = server.make_place().removeprefix("s3://").partition("?")[0].partition("/")
    more = "".join(f"&{name}={value}" for name, value in options.items())
    return f"s3://{bucket}/{prefix}?endpoint=https://localhost:{port}&region=us-east-1{more}"


@pytest.mark.parametrize("limit", LIMITS)
def test_a_server_certified_by_an_authority_of_ones_own(
    s3_server: S3Server, authority: Authority, limit: tuple[str, ...], tmp_path: Path
) -> None:
    make_mixed_image(IMAGE_BYTES, seed=8).save(tmp_path / "image")
    with tls_server(s3_server.port, authority.certify("localhost")) as port:
        place = name_place(s3_server, port, ca=authority.path)
        succeed("init", "-r", place, *limit)
        succeed("backup", tmp_path / "image", "--image", "vm", "-r", place, *limit)
        succeed("restore", "vm", tmp_path / "restored", "-r", place, *limit)
    assert (tmp_path / "restored").read_bytes() == (tmp_path / "image").read_bytes()


@pytest.mark.parametrize("limit", LIMITS)
def test_certificates_that_are_refused(s3_server: S3Server, authority: Authority, limit: tuple[str, ...]) -> None:
    other = Authority.make(authority.folder / "other")
    for certificate, words in (
        (authority.certify("localhost"), "its certificate is of an unknown authority"),
        (other.certify("elsewhere.example"), "its certificate is for another name"),
        (other.certify("localhost", ended=timedelta(hours=1)), "its certificate has expired"),
    ):
        with tls_server(s3_server.port, certificate) as port:
            place = name_place(s3_server, port, ca=other.path)
            run = deltaimg("snapshots", "-r", place, *limit)
        assert (run.code, words in run.err) == (58, True), run.err


@pytest.mark.parametrize("limit", LIMITS)
def test_hosts_that_cannot_be_reached(s3_server: S3Server, limit: tuple[str, ...]) -> None:
    (port,) = find_free_ports(1)
    for scheme in ("http", "https"):
        place = s3_server.location("bucket", port=port).replace("http:", f"{scheme}:")
        assert "refuses connections" in fail(54, "snapshots", "-r", place, *limit)
        place = f"s3://bucket?endpoint={scheme}://no-such-host.invalid"
        assert "its name cannot be resolved" in fail(54, "snapshots", "-r", place, *limit)
    place = s3_server.location("bucket").replace("http:", "https:")
    assert "does not speak TLS" in fail(54, "snapshots", "-r", place, *limit)


class CountingPace:
    """Lets everything pass, and counts it."""

    piece_bytes = 1 << 16

    def __init__(self) -> None:
        self.sent = self.received = 0

    def delay_sent(self, count: int) -> float:
        self.sent += count
        return 0.0

    def delay_received(self, count: int) -> float:
        self.received += count
        return 0.0

    def delay_request(self) -> float:
        return 0.0


@pytest.fixture
def proxy() -> Iterator[tuple[PacedRelay, CountingPace]]:
    """A proxy that wants a name and a password, as a company has it."""
    pace = CountingPace()
    relay = PacedRelay(pace)
    yield relay, pace
    relay.close()


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_through_a_proxy(
    s3_server: S3Server,
    authority: Authority,
    proxy: tuple[PacedRelay, CountingPace],
    scheme: str,
    limit: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    relay, pace = proxy
    make_mixed_image(IMAGE_BYTES, seed=9).save(tmp_path / "image")
    monkeypatch.setenv(f"{scheme}_proxy", relay.url)
    with tls_server(s3_server.port, authority.certify("localhost")) as port:
        place = s3_server.make_place() if scheme == "http" else name_place(s3_server, port, ca=authority.path)
        succeed("init", "-r", place, *limit)
        run = succeed("backup", tmp_path / "image", "--image", "vm", "-r", place, *limit, "--json")
        assert pace.sent > run.json["stored_bytes"], "all of it went through the proxy"
        before = pace.received
        monkeypatch.setenv("no_proxy", "localhost,127.0.0.1")
        succeed("restore", "vm", tmp_path / "restored", "-r", place, *limit)
        assert pace.received == before, "hosts that the environment excepts are reached without"
    assert (tmp_path / "restored").read_bytes() == (tmp_path / "image").read_bytes()


@pytest.mark.parametrize("limit", LIMITS)
def test_a_proxy_that_cannot_be_reached(
    s3_server: S3Server, limit: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    (port,) = find_free_ports(1)
    monkeypatch.setenv("http_proxy", f"http://ann:very-secret@127.0.0.1:{port}")
    message = fail(54, "snapshots", "-r", s3_server.location("bucket"), *limit)
    assert "very-secret" not in message


def test_an_interruption_waits_for_no_reads_of_a_slow_line(
    s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_incompressible_image(16 << 20).save(tmp_path / "image")
    place = s3_server.location(s3_server.make_bucket(), "x")
    succeed("init", "-r", place)
    succeed("backup", tmp_path / "image", "--image", "vm", "-r", place)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cold"))
    with SlowLine(s3_server.port) as line:
        through = place.replace(str(s3_server.port), str(line.port))
        words = command("restore", "vm", tmp_path / "restored", "-r", through)
        with subprocess.Popen(words, env=environment(through), stderr=subprocess.PIPE, text=True) as run:
            assert run.stderr is not None
            while line.received_bytes < 2 << 20:
                time.sleep(0.01)
            line.limit(100_000)  # 8 reads of 2 MiB take two minutes and a half
            run.send_signal(signal.SIGTERM)
            begun = time.monotonic()
            assert run.wait(100) == 143, run.stderr.read()
            said = run.stderr.read()
    assert "interrupted" in said
    assert time.monotonic() - begun < 60, "a lock is given back, and that is all"
    assert not (tmp_path / "restored").exists()
