# SPDX-License-Identifier: Apache-2.0
"""Check what can be checked of an encrypted repository without a key: names, headers, digests and sizes of what is stored.

Reads   every object but packs and parity whole; of a pack both its ends, or all of it. What refers to what is sealed, and is
        not compared.
"""

from __future__ import annotations

import time
from collections import Counter

import numpy as np

from deltaimg.engine.check.findings import FindingKind, Findings, Severity
from deltaimg.engine.check.key_slots import check_key_slots
from deltaimg.engine.check.pack_state import PackJob, read_pack
from deltaimg.engine.check.report import CheckReport
from deltaimg.engine.check.state import note_foreign, note_state
from deltaimg.engine.progress import Progress, stage
from deltaimg.errors import IntegrityError, ObjectNotFound, SealBroken, StoreError, UnsupportedFormat
from deltaimg.format.config import CONFIG_NAME
from deltaimg.format.framing import parse_header, unframe
from deltaimg.format.manifest import SNAPSHOTS
from deltaimg.format.pack import PACKS
from deltaimg.repo.deletions import load_deletions
from deltaimg.repo.keys import check_digest, expect_kind
from deltaimg.repo.object_kinds import ANNOTATION, INDEX, MANIFEST, MAP, ROSTER, SIGNATURE
from deltaimg.repo.repository import Repository

_SEALED = (MANIFEST, ANNOTATION, ROSTER, INDEX, SIGNATURE, MAP)


def check_without_key(repository: Repository, progress: Progress, *, read_packs: bool, own_token: str) -> CheckReport:
    """Check what is stored, byte by byte, and nothing of what it means.

    Args:
        own_token: of this run's lock, which is no finding.
    """
    started, findings, objects = time.monotonic(), Findings(), repository.objects
    pending = load_deletions(repository)
    sizes = {found.name: found.size_bytes for kind in _SEALED for found in objects.list(kind.folder)}
    packs = {found.name: found.size_bytes for found in objects.list(PACKS)}
    with stage(progress, "checking what is sealed", sum(sizes.values())), objects.reading_ahead(sizes):
        for name, size_bytes in sizes.items():
            _check_sealed(repository, name, findings)
            progress.advance(size_bytes)
    records = 0
    with stage(progress, "reading packs", sum(packs.values())):
        for name, size_bytes in packs.items():
            state = read_pack(objects, PackJob(name, size_bytes, np.empty(0, np.int64), read_packs))
            if state.error is not None and not isinstance(state.error, ObjectNotFound):
                findings.add_failure(name, state.error)
            elif state.damaged is not None:
                findings.add_error(FindingKind.DAMAGED, name, "its bytes are not those that its name is the digest of")
            records += 0 if state.footer is None else len(state.footer)
            progress.advance(size_bytes)
    check_key_slots(repository, findings)
    note_state(repository, findings, pending, own_token)
    note_foreign(repository, findings)
    findings.add_note(
        FindingKind.SEALED, CONFIG_NAME, "no key was given: whether all that snapshots need is there was not checked"
    )
    return CheckReport(
        findings=tuple(findings.found),
        snapshots=sum(name.startswith(SNAPSHOTS) for name in sizes),
        objects=dict(Counter(name.partition("/")[0] for name in sizes | packs)),
        records=records,
        unused_records=None,
        read_packs=read_packs,
        duration_s=round(time.monotonic() - started, 3),
    )


def _check_sealed(repository: Repository, name: str, findings: Findings) -> None:
    """Compare an object with its name, its header and the digest of its body."""
    kind = expect_kind(name)
    assert kind.magic is not None
    try:
        data = repository.objects.get_bytes(name)
        if kind.is_named_by_digest:
            check_digest(name, data)
        if not parse_header(kind.magic, name, data, may_be_sealed=True).is_sealed:
            raise SealBroken(name, 0, "is not sealed, though the repository is encrypted")
        unframe(kind.magic, name, data, is_sealed=True)
    except ObjectNotFound:
        return  # it was deleted since the listing
    except (IntegrityError, StoreError, UnsupportedFormat) as error:
        findings.add_failure(name, error, Severity.ERROR)
