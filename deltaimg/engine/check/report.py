# SPDX-License-Identifier: Apache-2.0
"""The result of a check."""

from __future__ import annotations

from msgspec import Struct

from deltaimg.engine.check.findings import Finding, Severity


class CheckReport(Struct, frozen=True):
    """All findings, and how much was checked."""

    findings: tuple[Finding, ...]
    snapshots: int
    objects: dict[str, int]
    """How many of each kind, by the folder they are in."""
    records: int
    unused_records: int | None
    """Those that no snapshot needs: what a prune would delete; None where that is not known without a key."""
    read_packs: bool
    duration_s: float

    def of(self, severity: Severity) -> list[Finding]:
        """Return the findings of one severity."""
        return [each for each in self.findings if each.severity is severity]

    def by_severity(self) -> dict[Severity, list[Finding]]:
        """Return the findings of each severity."""
        return {severity: self.of(severity) for severity in Severity}
