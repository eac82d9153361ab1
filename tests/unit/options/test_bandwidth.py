# SPDX-License-Identifier: Apache-2.0
"""Rates and timetables: what they mean at each moment, and which are refused."""

from __future__ import annotations

from datetime import datetime

import pytest

from deltaimg.errors import UsageError
from deltaimg.model import KIB, MIB
from deltaimg.options.bandwidth import parse_bandwidth
from deltaimg.options.definition import build
from deltaimg.options.store import StoreOptions, parse_requests

MONDAY = "2026-11-23"


def at(text: str, moment: str) -> tuple[float | None, float | None]:
    rates = parse_bandwidth(text).rates_at(datetime.fromisoformat(moment))
    return rates.sent, rates.received


@pytest.mark.parametrize(
    ("text", "sent", "received"),
    [
        ("512K", 512 * KIB, 512 * KIB),
        ("1.5m", 1.5 * MIB, 1.5 * MIB),
        ("1MiB/s", MIB, MIB),
        ("100B", 100, 100),
        ("10M:1M", 10 * MIB, MIB),
        ("off:1M", None, MIB),
        ("OFF", None, None),
    ],
)
def test_a_rate_holds_always(text: str, sent: float | None, received: float | None) -> None:
    assert at(text, f"{MONDAY}T03:00") == (sent, received)
    assert parse_bandwidth(text).next_change(datetime.fromisoformat(f"{MONDAY}T03:00")) is None


def test_a_timetable_of_the_day_holds_from_each_time_on_and_over_midnight() -> None:
    table = "08:00,512K 19:00,10M:1M 23:00,off"
    assert at(table, f"{MONDAY}T07:59") == (None, None)
    assert at(table, f"{MONDAY}T08:00") == (512 * KIB, 512 * KIB)
    assert at(table, f"{MONDAY}T18:59:59") == (512 * KIB, 512 * KIB)
    assert at(table, f"{MONDAY}T19:00") == (10 * MIB, MIB)
    assert at(table, "2026-11-29T23:30") == (None, None)
    assert at("19:00,1M 8:00,2M", f"{MONDAY}T09:00") == (2 * MIB, 2 * MIB), "in any order"


def test_a_timetable_of_the_week() -> None:
    table = "Mon-08:00,1M Wed-12:00,2M saturday-00:00,off"
    assert at(table, "2026-11-23T07:00") == (None, None), "what holds since Saturday"
    assert at(table, "2026-11-24T23:00") == (MIB, MIB)
    assert at(table, "2026-11-25T12:00") == (2 * MIB, 2 * MIB)
    assert at(table, "2026-11-28T00:00") == (None, None)


@pytest.mark.parametrize(
    ("table", "moment", "change"),
    [
        ("08:00,512K 19:00,10M", "2026-11-23T07:00:30", "2026-11-23T08:00:00"),
        ("08:00,512K 19:00,10M", "2026-11-23T08:00:00", "2026-11-23T19:00:00"),
        ("08:00,512K 19:00,10M", "2026-11-29T20:00:00", "2026-11-30T08:00:00"),
        ("08:00,1M 12:00,1M 19:00,2M", "2026-11-23T09:00:00", "2026-11-23T19:00:00"),
        ("Mon-08:00,1M Sat-00:00,off", "2026-11-28T10:00:00", "2026-11-30T08:00:00"),
    ],
)
def test_the_next_change_is_when_another_rate_begins(table: str, moment: str, change: str) -> None:
    found = parse_bandwidth(table).next_change(datetime.fromisoformat(moment))
    assert found == datetime.fromisoformat(change)


@pytest.mark.parametrize(
    "text",
    [
        *("", "fast", "512", "0K", "-1M", "1M:", ":1M", "1M:2M:3M", "08:00", "08:00,", "25:00,1M", "08:61,1M"),
        *(
            "08:00,1M 9:00",
            "08:00,1M 08:00,2M",
            "Xyz-08:00,1M",
            "1M 2M",
            "1M,08:00",
            "1e9M",
            "٣M",
            "08:00,512",
            "0.0001B",
        ),
    ],
)
def test_nonsense_is_refused_with_an_example_of_the_right_form(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_bandwidth(text)
    assert "08:00,512K 19:00,10M 23:00,off" in str(caught.value.hint)


@pytest.mark.parametrize(("text", "rate"), [("30/s", 30), ("600/min", 10), ("1800/h", 0.5), ("0.5/s", 0.5)])
def test_requests_a_time(text: str, rate: float) -> None:
    assert parse_requests(text) == rate


@pytest.mark.parametrize("text", ["", "30", "0/s", "30/d", "-1/s", "many/s", "30 /s x"])
def test_another_number_of_requests_is_refused(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        build(StoreOptions, {"max_requests": text})
    assert "30/s" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("text", "size_bytes", "start", "seconds"),
    [
        ("1M", 10 << 20, "2026-11-23T12:00", 10),
        ("2M:1M", 10 << 20, "2026-11-23T12:00", 5),
        ("off", 1 << 40, "2026-11-23T12:00", 0),
        ("08:00,1M 19:00,2M", 7200 << 20, "2026-11-23T18:00", 3600 + 1800),
        ("08:00,1M 19:00,off", 7200 << 20, "2026-11-23T18:00", 3600),
        ("Mon-00:00,1M Tue-00:00,2M", 4 << 20, "2026-11-23T23:59:58", 3),
    ],
)
def test_when_bytes_are_sent_at_the_limit(text: str, size_bytes: int, start: str, seconds: float) -> None:
    moment = datetime.fromisoformat(start)
    end = parse_bandwidth(text).find_end(size_bytes, moment)
    assert end is not None
    assert (end - moment).total_seconds() == pytest.approx(seconds, abs=0.01)
