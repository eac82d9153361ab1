# SPDX-License-Identifier: Apache-2.0
"""Can all annotations be read, and is there a snapshot for each? A part of `check`."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from deltaimg.engine.check.findings import FindingKind, Findings, Severity
from deltaimg.errors import IntegrityError, ObjectNotFound, StoreError, UnsupportedFormat
from deltaimg.format.annotation import split_annotation_name
from deltaimg.repo.object_kinds import ANNOTATION
from deltaimg.repo.repository import Repository, SnapshotRef


def check_annotations(
    repository: Repository, names: Iterable[str], snapshots: Collection[SnapshotRef], findings: Findings
) -> None:
    """Read annotations. None of them holds content, so that a damaged one is a warning: policies keep its snapshot.

    Args:
        names: object names of all annotations.
        snapshots: all that are there, those included whose manifests are damaged or in quarantine.
    """
    known = {(ref.image, ref.id) for ref in snapshots}
    has_newer: set[tuple[str, str]] = set()
    newest_first = sorted(names, reverse=True)
    with repository.objects.reading_ahead(newest_first):
        for name in newest_first:
            image, snapshot, _ = split_annotation_name(name) or ("", "", 0)
            if (image, snapshot) not in known:
                findings.add_note(FindingKind.ORPHAN, name, "its snapshot was forgotten; the next prune removes it")
                continue
            if (image, snapshot) in has_newer:
                findings.add_note(FindingKind.UNFINISHED, name, "a newer one counts; the next change removes it")
                continue
            try:
                repository.objects.get(ANNOTATION, name)
                has_newer.add((image, snapshot))
            except ObjectNotFound:
                continue
            except (IntegrityError, StoreError, UnsupportedFormat) as error:
                findings.add_failure(name, error, Severity.WARNING)
