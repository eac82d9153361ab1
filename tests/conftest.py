# SPDX-License-Identifier: Apache-2.0
"""Options and fixtures for all tests.

`--long` runs what takes minutes, `--new-interpreters` the program as users start it each time: see `forking`.
`DELTAIMG_REQUIRE=root,loop,tmpfs` makes a skip for one of these a failure. A test that draws its own random numbers takes
`seed`, which is printed when it fails; `DELTAIMG_SEED` repeats it. With `DELTAIMG_KERNELS=reference` tests marked
`native_speed` are skipped: they would take minutes.
"""

from __future__ import annotations

import itertools
import os
import random
import re
import signal
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from deltaimg.store.interface import Store
from deltaimg.store.local import LocalStore
from deltaimg.store.memory import MemoryStore
from tests.support.ceph import ceph_s3
from tests.support.clock import FixedClock
from tests.support.components import loop_device, required_components, small_tmpfs
from tests.support.forking import forks
from tests.support.s3_servers import ACCESS_KEY, SECRET_KEY, S3Server, juicefs_s3, rclone_s3, seaweedfs
from tests.support.sshd import SshServer, ssh_server

NUMBERS = itertools.count()
"""Of the folders of tests."""


@pytest.fixture(autouse=True, scope="session")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keep what fixtures of whole modules make out of the tester's home; returns where the homes of tests go."""
    folder = tmp_path_factory.mktemp("homes")
    with pytest.MonkeyPatch.context() as patch:
        use_home(folder / "session", patch)
        yield folder


def use_home(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Have the program keep its cache and state in a new folder."""
    for variable, name in (("XDG_CACHE_HOME", "cache"), ("XDG_STATE_HOME", "state")):
        os.makedirs(folder / name)
        patch.setenv(variable, str(folder / name))


@pytest.fixture(autouse=True, scope="session")
def shared_starts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Have the program run as a fork, where its kind of command line was run before by any worker: see `forking`."""
    if request.config.getoption("--new-interpreters"):
        return
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if hasattr(request.config, "workerinput") else base) / "command-lines"
    folder.mkdir(exist_ok=True)
    forks.folder = folder


@pytest.fixture(autouse=True, scope="session")
def heeded_interrupts() -> None:
    """Let programs that tests start be interrupted: a shell has jobs in the background ignore that, and they hand it on."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def keys_of_test_servers() -> Iterator[None]:
    """Have programs find the credentials of the tests' servers, and none of the tester's."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith("AWS_") or name.lower() in ("http_proxy", "https_proxy", "all_proxy"):
                patch.delenv(name)
        patch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
        patch.setenv("AWS_CONFIG_FILE", "/nonexistent/config")
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent/credentials")
        yield


@pytest.fixture(autouse=True)
def own_cache(homes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what the program caches and remembers on a host out of the tester's home, and of other tests."""
    use_home(homes / str(next(NUMBERS)), monkeypatch)


@pytest.fixture
def tmp_path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a new folder; pytest's own fixture looks through the folders of all tests before it for a free number."""
    folder = tmp_path_factory.getbasetemp() / f"{re.sub(r'[^a-zA-Z0-9_]', '_', request.node.name)[:24]}-{next(NUMBERS)}"
    folder.mkdir(mode=0o700)
    return folder


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="also run tests that take minutes")
    parser.addoption(
        "--new-interpreters",
        action="store_true",
        help="run each command in a new interpreter, none in a fork of a loaded one",
    )
    parser.addoption(
        "--s3-server",
        choices=("seaweedfs", "ceph", "juicefs"),
        default="seaweedfs",
        help="what S3 stores are tested on",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--long"):
        return
    is_slow = {"long": "takes minutes; run with --long"}
    if os.environ.get("DELTAIMG_KERNELS") == "reference":
        is_slow["native_speed"] = "takes minutes without the native core; run with --long"
    for item in items:
        for marker, reason in is_slow.items():
            if marker in item.keywords:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and isinstance(report.longrepr, tuple):
        reason = report.longrepr[2].removeprefix("Skipped: ")
        component = reason.partition(":")[0]
        if component in required_components():
            report.outcome = "failed"
            report.longrepr = f"skipped, though DELTAIMG_REQUIRE lists '{component}': {reason}"
    return report


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print what tests counted with `record_property`: it belongs in docs/reliability.md."""
    counted = [
        f"{report.nodeid.partition('::')[2]}: {key}: {value}"
        for report in terminalreporter.stats.get("passed", [])
        for key, value in report.user_properties
    ]
    if counted:
        terminalreporter.section("counted")
        for line in counted:
            terminalreporter.write_line(line)


@pytest.fixture
def seed() -> int:
    """A number to draw from; pytest prints it with the failure."""
    chosen = int(os.environ.get("DELTAIMG_SEED") or random.SystemRandom().randrange(2**32))
    print(f"seed: DELTAIMG_SEED={chosen}")
    return chosen


@pytest.fixture
def is_long(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--long"))


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock()


@pytest.fixture(scope="session")
def s3_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A server that keeps what it promises, for the whole session: SeaweedFS, or what `--s3-server` names."""
    start = {"seaweedfs": seaweedfs, "ceph": ceph_s3, "juicefs": juicefs_s3}[request.config.getoption("--s3-server")]
    with start(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(scope="session")
def rclone_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """`rclone serve s3`, for the whole session."""
    with rclone_s3(tmp_path_factory.mktemp("rclone")) as server:
        yield server


@pytest.fixture(params=["memory", "local"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """Each kind of store in turn, empty."""
    return MemoryStore() if request.param == "memory" else LocalStore(str(tmp_path / "repository"))


@pytest.fixture(scope="session")
def shared_sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    """One OpenSSH server for all tests that leave it as it was."""
    with ssh_server(tmp_path_factory.mktemp("sshd")) as server:
        yield server


@pytest.fixture
def sshd(shared_sshd: SshServer) -> Iterator[SshServer]:
    """An OpenSSH server that this process reaches by its own configuration, and by no agent or key of the tester's."""
    with shared_sshd.reached():
        yield shared_sshd


@pytest.fixture
def make_tmpfs(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Mounts a tmpfs of so many bytes and returns its folder."""
    with ExitStack() as stack:
        yield lambda size_bytes: stack.enter_context(small_tmpfs(tmp_path / "tmpfs", size_bytes))


@pytest.fixture
def make_loop(tmp_path: Path) -> Iterator[Callable[[Path], str]]:
    """Attaches a file to a loop device and returns the device's path."""
    with ExitStack() as stack:
        yield lambda backing: stack.enter_context(loop_device(backing))
