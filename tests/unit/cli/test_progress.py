# SPDX-License-Identifier: Apache-2.0
"""What progress says, and when."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from deltaimg.cli import progress
from deltaimg.cli.progress import Stage, Ticker, _Lines
from deltaimg.cli.terminal import Terminal

MIB = 1 << 20


class Clock:
    """The time that progress sees."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(progress, "time", made)
    return made


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Callable[[], list[str]]:
    """Return a function that returns what was printed since it was last called."""
    return lambda: capsys.readouterr().err.splitlines()


def test_a_stage_is_announced_once_and_then_told_of_every_ten_seconds(
    clock: Clock, said: Callable[[], list[str]]
) -> None:
    view, stage = _Lines(), Stage("backing up", 100 * MIB)
    view.begin(stage)
    stage.advance(MIB)
    view.tick()
    assert said() == ["backing up: 0 B of 100 MiB"]
    for _ in range(21):
        clock.now_s += 0.5
        stage.advance(MIB)
        view.tick()
    assert said() == ["backing up: 21.0 MiB of 100 MiB, 2.1 MiB/s, 38 s left"]


def test_a_stage_of_unknown_length_says_that_it_lasts(clock: Clock, said: Callable[[], list[str]]) -> None:
    view = _Lines()
    view.begin(Stage("planning", None))
    view.tick()
    assert said() == []
    for _ in range(60):
        clock.now_s += 0.2
        view.tick()
    assert said() == ["planning: 0.8 s so far", "planning: 11 s so far"]


def test_short_stages_do_not_fill_a_log(clock: Clock, said: Callable[[], list[str]]) -> None:
    """365 snapshots verified in a minute were 730 lines."""
    view = _Lines()
    for number in range(365):
        view.begin(Stage(f"verifying {number}", MIB))
        clock.now_s += 0.16
        view.tick()
    assert said() == ["verifying 0: 0 B of 1.0 MiB"]


def test_nothing_is_left_once_all_is_done(clock: Clock) -> None:
    stage = Stage("verifying", 10 * MIB)
    clock.now_s += 2
    stage.advance(10 * MIB)
    assert stage.describe() == "10.0 MiB of 10.0 MiB, 5.0 MiB/s"


def test_time_of_an_inner_stage_is_left_out_of_the_rate(clock: Clock) -> None:
    stage = Stage("backing up", 100 * MIB)
    clock.now_s += 10
    stage.advance(50 * MIB)
    clock.now_s += 1000
    stage.pause(1000)
    assert stage.describe() == "50.0 MiB of 100 MiB, 5.0 MiB/s, 10 s left"


def test_a_stage_without_bytes_to_do_says_how_long_it_takes() -> None:
    stage = Stage("reading sparse.raw", 0)
    assert stage.describe() == ""
    stage.started_s -= 3.0
    assert stage.describe() == "3.0 s so far"


def test_names_from_a_repository_are_escaped(clock: Clock, said: Callable[[], list[str]]) -> None:
    _Lines().begin(Stage("verifying \x1b[2J", MIB))
    assert said() == ["verifying \\x1b[2J: 0 B of 1.0 MiB"]


def test_progress_goes_on_where_no_thread_can_be_started(
    clock: Clock, said: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    view = _Lines()
    ticker = Ticker(view)
    view.begin(Stage("planning", None))
    clock.now_s += 1
    ticker.tick()
    ticker.stop()
    assert said() == ["planning: 1.0 s so far"]


def test_quiet_shows_warnings_only(said: Callable[[], list[str]]) -> None:
    with Terminal(is_quiet=True) as terminal:
        terminal.begin("backing up", MIB)
        terminal.advance(MIB)
        terminal.warn("a\x07b")
    assert said() == ["deltaimg: warning: a\\x07b"]
