# SPDX-License-Identifier: Apache-2.0
"""Repair a damaged repository, from what is left of it, from another copy and from the live image.

    1. check      everything is read, packs included: what is damaged, what is missing
    2. copy       objects that another copy of the repository has undamaged; packs that parity can recover
    3. salvage    the good records of damaged packs, and lost records that the copy or the image still has, into new packs
    4. index      new index objects for packs that none names, and in place of those that name what is missing
    5. quarantine what is damaged is moved to `quarantine/`: nothing is deleted, nothing else is rewritten
    6. list       which extents of which snapshots are still damaged

Always  each step is durable before the next, and an object is quarantined only after its replacement is durable: a run that was
        interrupted at any point is run again.
Always  an index keeps the entries of records that stay lost, so that a restore can skip them and restore the rest.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from itertools import chain

from msgspec import Struct, field

from deltaimg.delta.encode import EncodedRecord
from deltaimg.engine.check.findings import FindingKind
from deltaimg.engine.check.run import Checker
from deltaimg.engine.parity.repair import put_back
from deltaimg.engine.progress import NoProgress, Progress, stage
from deltaimg.engine.repair.config import is_config_whole, restore_config, restore_key_slots
from deltaimg.engine.repair.copies import copy_objects, find_copies
from deltaimg.engine.repair.index import IndexRepair
from deltaimg.engine.repair.known_digests import KnownDigests, find_digests
from deltaimg.engine.repair.lost_records import RecordMaker, make_from_copy, make_from_image
from deltaimg.engine.repair.plan import RepairPlan, is_restored, plan_repair
from deltaimg.engine.repair.record_verifier import RecordVerifier, read_record
from deltaimg.engine.repair.remaining_damage import SnapshotDamage, list_damage
from deltaimg.errors import IntegrityError, ParityExhausted, ParityUnusable, StoreError, UnsupportedFormat, UsageError
from deltaimg.format.config import CONFIG_NAME
from deltaimg.format.manifest import count_microseconds
from deltaimg.format.pack import PACKS
from deltaimg.image.source import ImageSource
from deltaimg.repo.family import is_same_family
from deltaimg.repo.keys import digest_of
from deltaimg.repo.lock import MaintenanceLock, ReaderLock
from deltaimg.repo.pack_reader import read_damaged_pack
from deltaimg.repo.pack_writer import PackWriter
from deltaimg.repo.parity import load_parity
from deltaimg.repo.quarantine import move_to_quarantine
from deltaimg.repo.repository import Repository


class RepairReport(Struct):
    """What was done, or with `is_dry_run` what would be; and what is damaged at the end of it."""

    is_dry_run: bool
    copied: list[str] = field(default_factory=list)
    """Objects taken from the copy."""
    recovered: list[str] = field(default_factory=list)
    """Packs recovered from parity."""
    quarantined: list[str] = field(default_factory=list)
    """Objects that were quarantined, by their former names."""
    salvaged_records: int = 0
    """Good records of damaged packs."""
    remade_records: int = 0
    """Lost records that were stored again."""
    lost_records: int = 0
    indexed_packs: int = 0
    """Packs that no index named, or that one described wrongly."""
    new_indexes: int = 0
    damage: tuple[SnapshotDamage, ...] = ()
    duration_s: float = 0.0


def repair(
    repository: Repository,
    *,
    copy: Repository | None = None,
    source: ImageSource | None = None,
    is_dry_run: bool = False,
    progress: Progress | None = None,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> RepairReport:
    """Repair a repository.

    Args:
        copy: another copy of this repository, or a member of its family, whose undamaged objects are used.
        source: an image whose blocks are searched.

    Raises:
        UsageError: the copy is of another family. FamilyConflict: see `is_same_family`.
        RepositoryLocked: a prune or another repair is running. StoreError.
    """
    if copy is not None and not is_same_family(repository, copy):
        raise UsageError(
            f"{copy.objects.location} is no copy of {repository.objects.location}, nor of its family: their keys differ",
            hint="if another repository's 'config' was put there, copy the right one back",
        )
    report = RepairReport(is_dry_run)
    with nullcontext() if copy is None else ReaderLock(copy, "repair of another repository", clock()):
        if is_dry_run:
            with repository.plan_changes() as planned:
                return _Repair(planned, copy, source, report, progress or NoProgress(), clock, lambda: None).run()
        with MaintenanceLock(repository, "repair", clock()) as lock:
            return _Repair(repository, copy, source, report, progress or NoProgress(), clock, lock.check).run()


class _Repair:
    """The state of one run."""

    def __init__(
        self,
        repository: Repository,
        copy: Repository | None,
        source: ImageSource | None,
        report: RepairReport,
        progress: Progress,
        clock: Callable[[], datetime],
        check_lock: Callable[[], None],
    ) -> None:
        """Args: check_lock: raises LockLost; called before each step that changes something."""
        self._check_lock = check_lock
        self._repository, self._copy, self._source = repository, copy, source
        self._report, self._progress, self._clock = report, progress, clock
        self._started = time.monotonic()

    def run(self) -> RepairReport:
        report = self._report
        if self._copy is not None:
            # First the slots: without one of them the config would open nothing.
            report.copied += restore_key_slots(self._repository, self._copy, self._check_lock)
            if not is_config_whole(self._repository):
                report.copied.append(CONFIG_NAME)
                if restore_config(self._repository, self._copy, self._check_lock):
                    report.quarantined.append(CONFIG_NAME)
        checker = self._take_copies(self._check())
        report.recovered = self._recover(checker)
        if report.recovered:
            checker = self._check(checker, report.recovered)
        with stage(self._progress, "finding what is lost"):
            self._plan = plan_repair(checker)
            self._digests = find_digests(self._repository, self._plan.wanted_ids)
            self._verifier = RecordVerifier(self._repository, self._plan.index)
        self._make_records(self._plan)
        self._repair_index(checker)
        self._quarantine(self._plan.damaged)
        with stage(self._progress, "listing what is still damaged"):
            checker = self._check(read_packs=False)
            report.damage = list_damage(self._repository, checker)
        report.duration_s = round(time.monotonic() - self._started, 3)
        return report

    def _take_copies(self, checker: Checker) -> Checker:
        """Copy objects that are undamaged elsewhere; return a new check."""
        report = self._report
        while copies := {
            name: place for name, place in find_copies(checker, self._copy).items() if name not in report.copied
        }:
            self._check_lock()
            report.quarantined += copy_objects(self._repository, copies, self._check_lock)
            report.copied += copies
            checker = self._check(checker, list(copies))
        return checker

    def _recover(self, checker: Checker) -> list[str]:
        """Recover damaged and missing packs from parity, where there is enough of it; return their names."""
        bad = checker.findings.names(FindingKind.DAMAGED, FindingKind.MISSING, FindingKind.UNREADABLE)
        wanted = sorted(name for name in bad if name.startswith(PACKS) and name not in self._report.copied)
        parity = load_parity(self._repository) if wanted else None
        if parity is None or not parity.groups:
            return []
        with stage(self._progress, "recovering packs from parity"):
            recovered = []
            for name in wanted:
                pack = digest_of(name)
                try:
                    is_done = put_back(self._repository, pack, parity, self._check_lock)
                except (ParityExhausted, ParityUnusable) as error:
                    self._progress.warn(str(error))
                    continue
                if is_done:
                    recovered.append(name)
        return recovered

    def _check(self, before: Checker | None = None, whole: Sequence[str] = (), *, read_packs: bool = True) -> Checker:
        """Check the repository.

        Args:
            before: an earlier check: packs that it has read are not read again. whole: packs that were recovered since.
        """
        known = dict(before.catalog.pack_damage) if before else {}
        known |= {name: None for name in whole if name.startswith(PACKS)}
        checker = Checker(self._repository, self._progress, read_packs=read_packs, known_packs=known)
        checker.check()
        return checker

    def _quarantine(self, names: set[str]) -> None:
        """Quarantine damaged objects, except those that were restored under the same name, byte for byte."""
        report = self._report
        for name in sorted(names):
            if not is_restored(self._repository, name):
                self._check_lock()
                move_to_quarantine(self._repository.objects, name)
                report.quarantined.append(name)

    # -- records -----------------------------------------------------------------------------------------------------

    def _make_records(self, plan: RepairPlan) -> None:
        """Store salvaged and recovered records in new packs."""
        report = self._report
        report.salvaged_records = len(plan.salvage)
        self._made: set[bytes] = set()
        now_us = plan.index.order_after(self._clock)
        with PackWriter(self._repository, now_us, check_lock=self._check_lock) as writer:
            for record in chain(self._salvage(plan), self._find_lost(plan)):
                writer.add(record.header, record.payload, record.digests, record.tables)
                self._made.add(record.header.id)
            writer.finish()
        salvaged = {record_id for places in plan.salvage.values() for record_id in places.values()}
        report.salvaged_records = len(salvaged & self._made)
        report.remade_records = len(self._made - salvaged)
        report.lost_records = len((plan.lost.keys() | salvaged) - self._made)

    def _salvage(self, plan: RepairPlan) -> Iterator[EncodedRecord]:
        """Yield the good records of damaged packs, unchanged, except those that an undamaged pack has as well."""
        for pack, places in plan.salvage.items():
            data = memoryview(read_damaged_pack(self._repository.objects, pack))
            for offset, record_id in places.items():
                try:
                    record = read_record(self._repository.objects, pack, offset, data)
                except (IntegrityError, UnsupportedFormat):
                    continue
                known = self._find_digests(record_id)
                if known is not None and record.header.id == record_id:
                    yield EncodedRecord(record.header, bytes(record.payload), known.digests, record.tables)

    def _find_lost(self, plan: RepairPlan) -> Iterator[EncodedRecord]:
        """Yield those of the lost records that the copy or the image has."""
        lost = dict(plan.lost)
        if not lost:
            return
        maker = RecordMaker(self._repository)
        if self._copy is not None:
            with stage(self._progress, "searching the copy"):
                for record in make_from_copy(self._copy, dict(lost), maker):
                    lost.pop(record.header.id)
                    yield record
        if self._source is None:
            return
        for block_bytes in sorted(set(lost.values())):
            wanted = {
                record_id: self._digests[record_id].digests
                for record_id, size in lost.items()
                if size == block_bytes and record_id in self._digests
            }
            yield from make_from_image(self._repository, self._source, wanted, block_bytes, maker, self._progress)

    def _find_digests(self, record_id: bytes) -> KnownDigests | None:
        """Return a record's digests from a signature, or from its content; None if neither is available."""
        if record_id not in self._digests:
            try:
                digests = self._verifier.expand(record_id).digests
            except (IntegrityError, StoreError, UnsupportedFormat):
                return None
            self._digests[record_id] = KnownDigests("", 0, digests)
        return self._digests[record_id]

    # -- index -------------------------------------------------------------------------------------------------------

    def _repair_index(self, checker: Checker) -> None:
        report = self._report
        self._check_lock()
        index_repair = IndexRepair(self._repository, self._plan, self._find_digests)
        report.indexed_packs = index_repair.index_packs(count_microseconds(self._clock()))
        superseded = index_repair.rewrite_indexes(checker, self._made)
        report.new_indexes = index_repair.new_indexes
        report.quarantined += superseded
