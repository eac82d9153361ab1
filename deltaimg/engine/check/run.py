# SPDX-License-Identifier: Apache-2.0
"""Check the structure of a repository, from metadata, without assembling any snapshot.

Reads   manifests, annotations, maps, index objects, signatures, key slots, locks and lists of pending deletions; of a pack its
        header and footer, or all of it to verify its name. Parity is checked by `engine/parity/`.
Always  each manifest, map and index is parsed once; layers are checked one by one: each covers what those below it do not.
Always  changes by other runs are no errors: if errors were found and objects came or went meanwhile, the check is repeated.
Memory  see `Catalog`; one map or signature at a time; a few hundred bytes a snapshot and a pack.

Content is not read: that is `verify`. So the root digests of snapshots are not compared here.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from datetime import UTC, datetime
from types import MappingProxyType

from deltaimg.engine.check.annotations import check_annotations
from deltaimg.engine.check.catalog import Catalog, PackDamage
from deltaimg.engine.check.findings import FindingKind, Findings, Severity, count_records
from deltaimg.engine.check.key_slots import check_key_slots
from deltaimg.engine.check.layers import LayerCheck
from deltaimg.engine.check.report import CheckReport
from deltaimg.engine.check.rosters import note_rosters
from deltaimg.engine.check.state import note_foreign, note_state, note_vanished
from deltaimg.engine.check.without_key import check_without_key
from deltaimg.engine.cluster import Cluster
from deltaimg.engine.progress import NoProgress, Progress, stage
from deltaimg.errors import IntegrityError, ObjectNotFound, StoreError, UnsupportedFormat
from deltaimg.format.annotation import ANNOTATIONS
from deltaimg.format.index import INDEXES
from deltaimg.format.manifest import SNAPSHOTS, Manifest, split_object_name
from deltaimg.format.map import MAPS
from deltaimg.format.pack import PACKS
from deltaimg.format.signature import SIGNATURES
from deltaimg.repo.deletions import load_deletions
from deltaimg.repo.groups import find_missing
from deltaimg.repo.lock import ReaderLock
from deltaimg.repo.object_kinds import MAP, SIGNATURE
from deltaimg.repo.repository import Repository, SnapshotRef

_FOLDERS = (SNAPSHOTS, ANNOTATIONS, MAPS, INDEXES, SIGNATURES, PACKS)
_ATTEMPTS = 3


def check(
    repository: Repository,
    *,
    read_packs: bool = False,
    vanished: Mapping[str, datetime] = MappingProxyType({}),
    progress: Progress | None = None,
    workers: int | None = None,
    cluster: Cluster | None = None,
) -> CheckReport:
    """Check every object of a repository except parity, and what it refers to.

    Args:
        read_packs: read whole packs, and so verify that their bytes are those that were written.
        vanished: images that have lost snapshots without a forget, and when these were last seen.
        cluster: where packs are read whole; threads of this process, if not given.

    Raises:
        StoreError: the repository cannot be listed. An error of a single object is a finding. LockLost: others considered this
            run dead, and what it found wrong may have been deleted by a prune.
    """
    progress = progress or NoProgress()
    with ReaderLock(repository, "check", datetime.now(UTC)) as lock:
        if repository.is_locked:
            return check_without_key(repository, progress, read_packs=read_packs, own_token=lock.token)
        for _ in range(_ATTEMPTS):
            run = Checker(
                repository, progress, read_packs=read_packs, workers=workers, own_token=lock.token, cluster=cluster
            )
            note_vanished(vanished, run.findings)
            note_rosters(repository, run.findings, datetime.now(UTC))
            report = run.check()
            if not report.of(Severity.ERROR):
                break
            lock.check()
            if not run.has_changed():
                break
    return report


class Checker:
    """One check of a repository. `repair` starts from its findings."""

    def __init__(
        self,
        repository: Repository,
        progress: Progress,
        *,
        read_packs: bool,
        workers: int | None = None,
        known_packs: PackDamage = MappingProxyType({}),
        own_token: str = "",
        cluster: Cluster | None = None,
    ) -> None:
        """Args: known_packs: not read, as their damage is known. own_token: of this run's lock, which is no finding."""
        self.repository = repository
        self.findings = Findings()
        self.manifests: dict[str, Manifest] = {}
        """Those that can be read, by snapshot id."""
        self.unknown: dict[bytes, int] = {}
        """Records that snapshots need and no index has, and the size of their blocks."""
        self._progress, self._read_packs, self._workers = progress, read_packs, workers
        self._known_packs, self._own_token, self._cluster = known_packs, own_token, cluster
        self._started = time.monotonic()
        # What a prune lists from now on waits for this run; what it has listed may be deleted at any time.
        self.pending = load_deletions(repository)
        # Snapshots first, then what they consist of: whatever a manifest names was stored before it.
        self.sizes: dict[str, int] = {}
        for folder in _FOLDERS:
            self.sizes |= {found.name: found.size_bytes for found in repository.objects.list(folder)}

    def check(self) -> CheckReport:
        """Check everything once; what was found is in `findings` as well."""
        with stage(self._progress, "checking the index"):
            self.catalog = Catalog(self.repository, self.sizes, self.findings, self._known_packs)
        self._check_packs()
        with stage(self._progress, "checking signatures and snapshots"):
            self._check_snapshots()
        return CheckReport(
            findings=tuple(self.findings.found),
            snapshots=len(self.manifests),
            objects=dict(Counter(name.partition("/")[0] for name in self.sizes)),
            records=len(self.catalog),
            unused_records=int((~self.is_used).sum()),
            read_packs=self._read_packs,
            duration_s=round(time.monotonic() - self._started, 3),
        )

    def _check_packs(self) -> None:
        packs_bytes = sum(size for name, size in self.sizes.items() if name.startswith(PACKS))
        with stage(self._progress, "reading packs", packs_bytes) if self._read_packs else nullcontext():
            self.catalog.check_packs(
                read_packs=self._read_packs,
                advance=self._progress.advance,
                workers=self._workers,
                cluster=self._cluster,
            )

    def _check_snapshots(self) -> None:
        """Check what snapshots consist of, and what else is in the repository."""
        self.catalog.check_signatures()
        self.catalog.sort()
        self.catalog.check_sources()
        self._load_manifests()
        self._note_groups()
        layers = LayerCheck(self.repository, self.sizes, self.catalog, self.findings)
        layers.check(self.manifests.values())
        self.is_used, self.unknown = layers.is_used, layers.unknown
        self.catalog.add_sources(self.is_used)
        self.catalog.report_sources(self.is_used)
        self.catalog.report_missing(self.is_used)
        self._note_orphans()
        if self._names(MAPS) and not self._names(SNAPSHOTS):
            problem = "no snapshot is there, but maps are: is a disk not mounted? Or a first backup was interrupted"
            self.findings.add_warning(FindingKind.MISSING, SNAPSHOTS, problem)
        self._check_annotations()
        check_key_slots(self.repository, self.findings)
        note_state(self.repository, self.findings, self.pending, self._own_token)
        note_foreign(self.repository, self.findings)

    def has_changed(self) -> bool:
        """Return whether an object was added or deleted since the listing, other than locks."""
        return {
            found.name for folder in _FOLDERS for found in self.repository.objects.list(folder)
        } != self.sizes.keys()

    # -- snapshots ---------------------------------------------------------------------------------------------------

    def _load_manifests(self) -> None:
        names = self._names(SNAPSHOTS)
        with self.repository.objects.reading_ahead(names):
            for name in names:
                self._load_manifest(name)

    def _load_manifest(self, name: str) -> None:
        parts = split_object_name(name)
        assert parts is not None
        try:
            manifest = self.repository.load_manifest(SnapshotRef(*parts))
        except ObjectNotFound:
            return
        except (IntegrityError, StoreError, UnsupportedFormat) as error:
            self.findings.add_failure(name, error)
            return
        if manifest.id in self.manifests:
            self.findings.add_error(
                FindingKind.CONTRADICTORY, name, f"has the id of {self.manifests[manifest.id].object_name}"
            )
            return
        self.manifests[manifest.id] = manifest

    def _note_groups(self) -> None:
        """Warn of each snapshot of a group that is not whole."""
        there = {(each.image, each.time) for each in self.manifests.values()}
        noted = set()
        for each in self.manifests.values():
            missing = find_missing(each, there)
            if missing and each.group is not None and (each.group.name, each.time) not in noted:
                noted.add((each.group.name, each.time))
                problem = f"group {each.group.name} is incomplete: there is no snapshot of {', '.join(missing)} of this moment"
                self.findings.add_warning(FindingKind.MISSING, each.object_name, problem)

    # -- what nothing refers to --------------------------------------------------------------------------------------

    def _note_orphans(self) -> None:
        catalog = self.catalog
        named = {MAP.name_of(digest) for manifest in self.manifests.values() for digest in manifest.maps}
        self._note_unnamed(MAPS, named, "no snapshot names it")
        self._note_unnamed(SIGNATURES, {SIGNATURE.name_of(each) for each in catalog.signatures}, "no index names it")
        indexed = set(catalog.packs)
        for name in self._names(PACKS):
            if name not in indexed:
                self.findings.add_note(FindingKind.ORPHAN, name, "no index names it")
        for number, name in enumerate(catalog.index_names):
            entries = catalog.entries_of(number)
            if not self.is_used[entries].any():
                count = entries.stop - entries.start
                self.findings.add_note(FindingKind.ORPHAN, name, f"no snapshot needs any of its {count_records(count)}")

    def _check_annotations(self) -> None:
        listed = (split_object_name(name) for name in self._names(SNAPSHOTS))
        refs = {
            SnapshotRef(*parts) for parts in listed if parts is not None
        } | self.repository.list_quarantined().keys()
        check_annotations(self.repository, self._names(ANNOTATIONS), refs, self.findings)

    def _note_unnamed(self, folder: str, named: Iterable[str], problem: str) -> None:
        """Note objects that nothing names; damage of one costs nothing, and is a warning."""
        unnamed = sorted(self._names(folder) - set(named))
        with self.repository.objects.reading_ahead(unnamed):
            for name in unnamed:
                self.findings.add_note(FindingKind.ORPHAN, name, problem)
                try:
                    self.repository.objects.get_verified(name)
                except ObjectNotFound:
                    continue
                except (IntegrityError, StoreError, UnsupportedFormat) as error:
                    self.findings.add_failure(name, error, Severity.WARNING)

    def _names(self, folder: str) -> set[str]:
        return {name for name in self.sizes if name.startswith(folder)}
