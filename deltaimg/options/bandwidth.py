# SPDX-License-Identifier: Apache-2.0
"""How fast bytes may travel, and at what time of the week: a rate, or a timetable in the form that rclone has.

    10M                                      10 MiB a second each way, always
    10M:1M                                   10 MiB a second up, 1 MiB a second down
    off                                      as fast as it goes
    08:00,512K 19:00,10M 23:00,off           from each time of the day on, local time
    Mon-08:00,1M Sat-00:00,off               from each time of the week on

Units are powers of 1024, and have to be written: rclone takes a bare number for KiB, other programs for bytes.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from datetime import datetime, timedelta

from msgspec import Struct

from deltaimg.errors import UsageError
from deltaimg.options.values import ValueType, format_size

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_DAY_MINUTES = 24 * 60
_WEEK_MINUTES = 7 * _DAY_MINUTES
_RATE = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)([BKMGT])(?:iB)?(?:/s)?", re.ASCII | re.IGNORECASE)
_ENTRY = re.compile(r"(?:([A-Za-z]{3})[A-Za-z]*-)?(\d{1,2}):(\d\d),(\S+)", re.ASCII)
_HINT = "write a rate such as 512K, 10M:1M or off, or a timetable such as '08:00,512K 19:00,10M 23:00,off'"
_OFF = "off"


class Rates(Struct, frozen=True):
    """Bytes a second each way; None is as fast as it goes."""

    sent: float | None
    received: float | None

    def __str__(self) -> str:
        up, down = _format_rate(self.sent), _format_rate(self.received)
        return up if up == down else f"{up}:{down}"


class Bandwidth(Struct, frozen=True):
    """A timetable of rates; a single rate is one with a single entry."""

    entries: tuple[tuple[int, Rates], ...]
    """Minutes since Monday 00:00, ascending, and what holds from then on; the last holds into the next week."""
    text: str
    """As it was written."""

    def rates_at(self, moment: datetime) -> Rates:
        """Return what holds at a moment, which is in local time."""
        return self.entries[self._find(moment)][1]

    def next_change(self, moment: datetime) -> datetime | None:
        """Return when another rate begins to hold; None where there is none."""
        place, now = self._find(moment), self.rates_at(moment)
        for step in range(1, len(self.entries) + 1):
            minute, rates = self.entries[(place + step) % len(self.entries)]
            if rates != now:
                begins = moment.replace(second=0, microsecond=0) - timedelta(minutes=_minute_of(moment) - minute)
                return begins if begins > moment else begins + timedelta(minutes=_WEEK_MINUTES)
        return None

    def find_end(self, size_bytes: int, start: datetime) -> datetime | None:
        """Return when this many bytes are sent that begin to travel at `start`, which is in local time.

        None where the rate is zero for good. What travels while there is no limit takes no time: how fast it goes is not known.
        """
        moment, left = start, float(size_bytes)
        while left > 0:
            rate, change = self.rates_at(moment).sent, self.next_change(moment)
            if rate is None:
                return moment
            if change is None:
                return moment + timedelta(seconds=left / rate) if rate else None
            capacity = rate * (change - moment).total_seconds()
            if capacity >= left:
                return moment + timedelta(seconds=left / rate)
            left -= capacity
            moment = change
        return moment

    def _find(self, moment: datetime) -> int:
        return bisect_right(self.entries, _minute_of(moment), key=lambda entry: entry[0]) - 1


def parse_bandwidth(text: str) -> Bandwidth:
    """Return what a rate or a timetable means; raises UsageError."""
    words = text.split()
    if len(words) == 1 and "," not in words[0]:
        return Bandwidth(((0, _parse_rates(words[0], text)),), text.strip())
    entries: dict[int, Rates] = {}
    for word in words:
        for minute, rates in _parse_entry(word, text):
            if minute in entries:
                raise _refuse(text, "has two rates for one time")
            entries[minute] = rates
    if not entries:
        raise _refuse(text, "is empty")
    ordered = sorted(entries.items())
    # What holds at the end of the week holds at its beginning.
    return Bandwidth(tuple(ordered if ordered[0][0] == 0 else [(0, ordered[-1][1]), *ordered]), " ".join(words))


def _parse_entry(word: str, text: str) -> list[tuple[int, Rates]]:
    """Return the minutes of the week at which one entry begins, each with its rates: one, or that of each day."""
    match = _ENTRY.fullmatch(word)
    if match is None:
        raise _refuse(text, f"'{word[:40]}' is no time and rate")
    hour, minute = int(match[2]), int(match[3])
    day = (match[1] or "").capitalize()
    if hour > 23 or minute > 59 or (day and day not in _DAYS):
        raise _refuse(text, f"'{word[:40]}' has no valid time")
    rates = _parse_rates(match[4], text)
    days = [_DAYS.index(day)] if day else range(len(_DAYS))
    return [(each * _DAY_MINUTES + hour * 60 + minute, rates) for each in days]


def _parse_rates(text: str, whole: str) -> Rates:
    up, colon, down = text.partition(":")
    sent = _parse_rate(up, whole)
    return Rates(sent, _parse_rate(down, whole) if colon else sent)


def _parse_rate(text: str, whole: str) -> float | None:
    if text.lower() == _OFF:
        return None
    match = _RATE.fullmatch(text)
    if match is None:
        why = "needs a unit, K, M or G" if text.replace(".", "", 1).isdecimal() else "is no rate"
        raise _refuse(whole, f"'{text[:40]}' {why}")
    unit: int = 1024 ** "BKMGT".index(match[2].upper())
    rate = float(match[1]) * unit
    if rate < 1:
        raise _refuse(whole, f"'{text[:40]}' would never end")
    return rate


def _refuse(text: str, why: str) -> UsageError:
    return UsageError(f"rate '{text[:80]}': {why}", hint=_HINT)


def _minute_of(moment: datetime) -> int:
    return moment.weekday() * _DAY_MINUTES + moment.hour * 60 + moment.minute


def _format_rate(rate: float | None) -> str:
    return _OFF if rate is None else format_size(round(rate)) if rate >= 1024 else f"{rate:g}B"


BANDWIDTH = ValueType("RATE|TIMETABLE", parse_bandwidth, lambda bandwidth: str(bandwidth.text))
