# SPDX-License-Identifier: Apache-2.0
"""What a check found."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deltaimg.engine.check.findings import Finding
    from deltaimg.engine.check.report import CheckReport


def describe_check(report: CheckReport, accepted: list[str] | None = None) -> dict[str, object]:
    """Return a report: what was checked, and the findings by severity.

    Args:
        accepted: what was found, and accepted, before; None where that was not asked for.
    """
    findings: dict[str, object] = {
        f"{severity.value}s": [_describe_finding(each) for each in found]
        for severity, found in report.by_severity().items()
    }
    return {
        "snapshots": report.snapshots,
        "objects": report.objects,
        "records": report.records,
        "unused_records": report.unused_records,
        "read_packs": report.read_packs,
        **({} if accepted is None else {"accepted": accepted}),
        **findings,
        "duration_s": report.duration_s,
    }


def _describe_finding(finding: Finding) -> dict[str, object]:
    return {
        "kind": finding.kind.value,
        "object": finding.object_name,
        "offset": finding.offset,
        "problem": finding.problem,
    }
