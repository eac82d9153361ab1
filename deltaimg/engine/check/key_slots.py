# SPDX-License-Identifier: Apache-2.0
"""Can all key slots be read? A part of `check`; whether a key opens one is not asked."""

from __future__ import annotations

from deltaimg.engine.check.findings import Findings, Severity
from deltaimg.errors import IntegrityError, ObjectNotFound, StoreError, UnsupportedFormat
from deltaimg.format.key_slot import KEYS
from deltaimg.repo.object_kinds import KEY_SLOT
from deltaimg.repo.repository import Repository


def check_key_slots(repository: Repository, findings: Findings) -> None:
    """Read the key slots. A damaged one is a warning: its key opens nothing any more, and others still do."""
    for found in repository.objects.list(KEYS):
        try:
            repository.objects.get(KEY_SLOT, found.name)
        except ObjectNotFound:
            continue
        except (IntegrityError, StoreError, UnsupportedFormat) as error:
            findings.add_failure(found.name, error, Severity.WARNING)
