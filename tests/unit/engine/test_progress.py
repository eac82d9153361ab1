# SPDX-License-Identifier: Apache-2.0
"""Jobs that share one stage count as many bytes as it has, whatever the totals of their own stages are."""

from __future__ import annotations

from deltaimg.engine.progress import NoProgress, SharedStage, stage


class Recorder(NoProgress):
    """Keeps the stages that were begun, and the bytes that each counted."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.open: list[str] = []
        self.done: dict[str, int] = {}

    def begin(self, task: str, total_bytes: int | None) -> None:
        self.stages.append(task)
        self.open.append(task)

    def advance(self, done_bytes: int) -> None:
        assert done_bytes >= 0
        self.done[self.open[-1]] = self.done.get(self.open[-1], 0) + done_bytes

    def end(self) -> None:
        self.open.pop()


def test_each_job_counts_as_what_it_was_said_to_count_for() -> None:
    recorder = Recorder()
    with stage(recorder, "all", 1000):
        first = SharedStage(recorder, 600)
        with stage(first, "planning"):
            first.advance(7)
        with stage(first, "restoring", 30):
            for _ in range(2):
                first.advance(10)
            assert recorder.done["all"] == 400
            first.advance(50)  # more than it announced
        assert recorder.done["all"] == 600
        second = SharedStage(recorder, 400)
        with stage(second, "restoring", 0):
            pass
    assert recorder.done == {"planning": 7, "all": 1000}
    assert recorder.stages == ["all", "planning"]
    assert recorder.open == []
