# SPDX-License-Identifier: Apache-2.0
"""Seeded content for a guest: prose, log lines, mails, and media that do not compress.

Always  the same seed gives the same bytes.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np

_SYLLABLES = (
    "ba", "ce", "di", "fo", "gu", "ha", "je", "ki", "lo", "mu", "na", "pe", "qui", "ra", "so", "tu", "va", "we", "xi",
    "yo", "zen", "tor", "mal", "ver", "lin", "dos", "est", "ran",
)  # fmt: skip
_SERVICES = ("sshd", "cron", "postfix/smtpd", "kernel", "systemd", "dhclient", "nginx", "dovecot", "sudo")
_MESSAGES = (
    "Accepted publickey for user{0} from 10.0.{1}.{2} port {3} ssh2",
    "Connection closed by 10.0.{1}.{2} port {3} [preauth]",
    "(root) CMD (run-parts --report /etc/cron.hourly) pid {3}",
    "connect from mail{0}.example.net[10.0.{1}.{2}]",
    "client=10.0.{1}.{2}, request id {3}{0}, took {2} ms",
    "session opened for user user{0}(uid={3}) by (uid=0)",
)


class ContentMaker:
    """Makes the files of one day from one seed."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        vocabulary = np.random.default_rng(1)
        self._words = np.array(
            ["".join(vocabulary.choice(_SYLLABLES, vocabulary.integers(1, 5))) for _ in range(20_000)]
        )
        weights = 1 / np.arange(1, 20_001) ** 0.9
        self._weights = weights / weights.sum()

    def integers(self, low: int, high: int, count: int) -> list[int]:
        """`count` numbers in `[low, high)`."""
        return [int(value) for value in self._random.integers(low, high, count)]

    def media(self, size_bytes: int) -> bytes:
        """Bytes that no compressor shortens, as of photographs and archives."""
        return self._random.bytes(size_bytes)

    def prose(self, size_bytes: int) -> str:
        """Text of about this size: words by Zipf's law in lines of a dozen."""
        words = self._random.choice(self._words, size=max(12, size_bytes // 8), p=self._weights)
        lines = [" ".join(words[start : start + 12]) for start in range(0, len(words), 12)]
        return "\n".join(lines) + "\n"

    def log_lines(self, count: int, *, day: int) -> str:
        """A day's worth of syslog lines, spread evenly over 24 hours."""
        start = datetime(2026, 3, 1, tzinfo=UTC) + timedelta(days=day)
        numbers = self._random.integers(0, 65_536, (count, 4))
        lines = []
        for index, (first, second, third, fourth) in enumerate(numbers.tolist()):
            when = start + timedelta(seconds=86_400 * index / count)
            message = _MESSAGES[first % len(_MESSAGES)].format(second % 40, first % 256, third % 256, fourth)
            lines.append(f"{when:%b %d %H:%M:%S} guest {_SERVICES[fourth % len(_SERVICES)]}[{third}]: {message}\n")
        return "".join(lines)

    def mail(self, number: int, *, day: int) -> str:
        """One message with headers; every eighth carries an attachment in base64-like text."""
        sender, receiver = self.integers(0, 40, 2)
        head = (
            f"From: user{sender}@example.net\nTo: user{receiver}@example.net\nMessage-Id: <{day}.{number}@guest>\n"
            f"Subject: {self.prose(60).splitlines()[0][:60]}\n\n"
        )
        body = self.prose(self.integers(500, 8_000, 1)[0])
        attachment = self.media(self.integers(8_000, 60_000, 1)[0]).hex() if number % 8 == 0 else ""
        return head + body + attachment + "\n"
