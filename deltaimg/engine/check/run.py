# SPDX-License-Identifier: Apache-2.0
"""Is the repository whole? Told from metadata, without any snapshot being put together.

Reads   manifests, maps, index objects, signatures, locks and lists of pending deletions; of a pack its header and footer, or
        all of it to hold it against its name. Parity is for `engine/parity/` to look at.
Always  each manifest, map and index is parsed once; a chain is judged link by link: a map covers what its base does not.
Always  what others do meanwhile is no error: where objects came or went during a check that found any, it begins anew.
Memory  see `Catalog`; one map or signature at a time; a few hundred bytes a snapshot and a pack.

Content is not read: that is `verify`. So what a snapshot's digests add up to is not held against its root digest here.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from deltaimg.arrays import end_blocks
from deltaimg.engine.check.catalog import Catalog
from deltaimg.engine.check.findings import Finding, FindingKind, Findings, Severity, count_records
from deltaimg.engine.check.state import note_foreign, note_state
from deltaimg.engine.progress import NoProgress, Progress
from deltaimg.errors import IntegrityError, ObjectNotFound, StoreError, UnsupportedFormat
from deltaimg.format.index import INDEXES
from deltaimg.format.manifest import SNAPSHOTS, Manifest, split_object_name
from deltaimg.format.map import MAPS, MapObject, parse_map
from deltaimg.format.pack import PACKS
from deltaimg.format.signature import SIGNATURES
from deltaimg.model import count_blocks
from deltaimg.repo.repository import Repository, SnapshotRef

_FOLDERS = (SNAPSHOTS, MAPS, INDEXES, SIGNATURES, PACKS)
_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class CheckReport:
    """All that was found, and how much was looked at."""

    findings: tuple[Finding, ...]
    snapshots: int
    objects: dict[str, int]
    """How many of each kind, by the folder they are in."""
    records: int
    unused_records: int
    """Those that no snapshot needs: what a prune would delete."""
    read_packs: bool
    duration_s: float

    def of(self, severity: Severity) -> list[Finding]:
        return [each for each in self.findings if each.severity is severity]


def check(
    repository: Repository, *, read_packs: bool = False, progress: Progress | None = None, workers: int | None = None
) -> CheckReport:
    """Look at every object of a repository, parity left out, and at what it refers to.

    Args:
        read_packs: read packs whole, and so prove that their bytes are those that were written.

    Raises:
        StoreError: the repository cannot be listed. What a single object meets is a finding.
    """
    progress = progress or NoProgress()
    for _ in range(_ATTEMPTS):
        run = Checker(repository, progress, read_packs=read_packs, workers=workers)
        report = run.check()
        if not report.of(Severity.ERROR) or not run.has_changed():
            break
    return report


class Checker:
    """One look at a repository. `repair` goes on from what it found."""

    def __init__(
        self, repository: Repository, progress: Progress, *, read_packs: bool, workers: int | None = None
    ) -> None:
        self.repository = repository
        self.findings = Findings()
        self.manifests: dict[str, Manifest] = {}
        """Those that can be read, by snapshot id."""
        self.unknown: dict[bytes, int] = {}
        """Records that maps list and no index has, and the size of their blocks."""
        self._progress, self._read_packs, self._workers = progress, read_packs, workers
        self._started = time.monotonic()
        # Snapshots first, then what they are made of: whatever a manifest names was there before it.
        self.sizes: dict[str, int] = {}
        for folder in _FOLDERS:
            self.sizes |= {found.name: found.size_bytes for found in repository.store.list(folder)}

    def check(self) -> CheckReport:
        self._progress.start("checking the index", None)
        self.catalog = Catalog(self.repository, self.sizes, self.findings)
        if self._read_packs:
            self._progress.start(
                "reading packs", sum(size for name, size in self.sizes.items() if name.startswith(PACKS))
            )
        self.catalog.check_packs(read_packs=self._read_packs, advance=self._progress.advance, workers=self._workers)
        self._progress.start("checking signatures and snapshots", None)
        self.catalog.check_signatures()
        self.catalog.sort()
        self.catalog.check_sources()
        self._load_manifests()
        self.is_used = np.zeros(len(self.catalog), np.bool_)
        self._check_maps()
        self._check_chains()
        self.catalog.add_sources(self.is_used)
        self.catalog.report_sources(self.is_used)
        self._note_orphans()
        note_state(self.repository, self.findings)
        note_foreign(self.repository, self.findings)
        return CheckReport(
            findings=tuple(self.findings.found),
            snapshots=len(self.manifests),
            objects=dict(Counter(name.partition("/")[0] for name in self.sizes)),
            records=len(self.catalog),
            unused_records=int((~self.is_used).sum()),
            read_packs=self._read_packs,
            duration_s=round(time.monotonic() - self._started, 3),
        )

    def has_changed(self) -> bool:
        """Tell whether an object came or went since the listing, other than locks."""
        return {found.name for folder in _FOLDERS for found in self.repository.store.list(folder)} != self.sizes.keys()

    # -- snapshots ---------------------------------------------------------------------------------------------------

    def _load_manifests(self) -> None:
        for name in self._names(SNAPSHOTS):
            parts = split_object_name(name)
            assert parts is not None
            try:
                manifest = self.repository.load_manifest(SnapshotRef(*parts))
            except ObjectNotFound:
                continue
            except (IntegrityError, StoreError, UnsupportedFormat) as error:
                self.findings.add_failure(name, error)
                continue
            if manifest.id in self.manifests:
                self.findings.add_error(
                    FindingKind.CONTRADICTORY, name, f"has the id of {self.manifests[manifest.id].object_name}"
                )
                continue
            self.manifests[manifest.id] = manifest

    def _check_maps(self) -> None:
        """Parse each map once, for all snapshots that name it, and mark the records that it uses."""
        users: defaultdict[str, list[Manifest]] = defaultdict(list)
        for manifest in self.manifests.values():
            users[manifest.map].append(manifest)
        for digest, manifests in users.items():
            name = MAPS + digest
            if name not in self.sizes:
                self.findings.add_error(FindingKind.MISSING, name, f"is missing; {_tell_labels(manifests)} needs it")
                continue
            try:
                content = parse_map(self.repository.get_object(MAPS, digest), name)
            except (IntegrityError, StoreError, UnsupportedFormat) as error:
                self.findings.add_failure(name, error)
                continue
            self._check_records(name, content, manifests)
            for manifest in manifests:
                self._check_cover(manifest, content)

    def _check_records(self, name: str, content: MapObject, manifests: list[Manifest]) -> None:
        """Hold the records that a map lists against the index."""
        entries = self.catalog.find(content.record_ids)
        shift = manifests[0].block_bytes.bit_length() - 1
        self.unknown |= {row.tobytes(): 1 << shift for row in content.record_ids[entries < 0]}
        found = entries[entries >= 0]
        self.is_used[found] = True
        unknown = int((entries < 0).sum())
        others = int((self.catalog.entries["slots"][found] != content.record_slots[entries >= 0]).sum())
        others += int((self.catalog.entries["block_shift"][found] != shift).sum())
        lost = int((~self.catalog.is_usable[found]).sum())
        for count, problem in (
            (unknown, "that no index has"),
            (others, "whose blocks are others in the index"),
            (lost, "of what is missing or damaged"),
        ):
            if count:
                self.findings.add_error(
                    FindingKind.CONTRADICTORY, name, f"{_tell_labels(manifests)} needs {count_records(count)} {problem}"
                )

    def _check_cover(self, manifest: Manifest, content: MapObject) -> None:
        """A full map covers its image, an incremental one what lies behind the end of its base's image."""
        name = MAPS + manifest.map
        block_count = count_blocks(manifest.size_bytes, manifest.block_bytes)
        if content.block_count != block_count:
            self.findings.add_error(
                FindingKind.CONTRADICTORY,
                name,
                f"is of {content.block_count} blocks, and {manifest.label}, which names it, has {block_count}",
            )
            return
        covered = 0
        if not manifest.map_is_full:
            base = self.manifests.get(manifest.base or "")
            if base is None:
                return
            covered = count_blocks(base.size_bytes, base.block_bytes)
        if not _is_covered(content, covered):
            self.findings.add_error(
                FindingKind.CONTRADICTORY, name, f"does not cover the image of {manifest.label}, which names it"
            )

    def _check_chains(self) -> None:
        """Follow each snapshot's bases as far as its map needs them."""
        is_rooted: dict[str, bool] = {}
        for manifest in self.manifests.values():
            path: list[Manifest] = []
            on_path: set[str] = set()
            link = manifest
            while link.id not in is_rooted:
                path.append(link)
                on_path.add(link.id)
                if link.map_is_full:
                    is_rooted[link.id] = True
                    break
                problem = self._find_base_problem(link, on_path)
                if problem is not None:
                    self.findings.add_error(FindingKind.CONTRADICTORY, link.object_name, problem)
                    is_rooted[link.id] = False
                    break
                link = self.manifests[link.base or ""]
            for each in reversed(path):
                is_rooted[each.id] = is_rooted[link.id]

    def _find_base_problem(self, manifest: Manifest, on_path: set[str]) -> str | None:
        base = self.manifests.get(manifest.base or "")
        if base is None or base.image != manifest.image:
            return f"needs its base {manifest.base}, which is missing or cannot be read"
        if base.id in on_path:
            return f"needs its base {base.id}, which needs it in turn"
        if base.block_bytes != manifest.block_bytes:
            return f"has blocks of {manifest.block_bytes} bytes, and its base of {base.block_bytes}"
        return None

    # -- what nothing refers to --------------------------------------------------------------------------------------

    def _note_orphans(self) -> None:
        catalog = self.catalog
        named = {MAPS + manifest.map for manifest in self.manifests.values()}
        self._note_unnamed(MAPS, named, "no snapshot names it")
        self._note_unnamed(SIGNATURES, {SIGNATURES + each for each in catalog.signatures}, "no index names it")
        indexed = set(catalog.packs)
        for name in self._names(PACKS):
            if name not in indexed:
                self.findings.add_note(FindingKind.ORPHAN, name, "no index names it")
        for number, name in enumerate(catalog.index_names):
            entries = catalog.entries_of(number)
            if not self.is_used[entries].any():
                count = entries.stop - entries.start
                self.findings.add_note(FindingKind.ORPHAN, name, f"no snapshot needs any of its {count_records(count)}")

    def _note_unnamed(self, folder: str, named: Iterable[str], problem: str) -> None:
        """Note objects that nothing names; that one of them is damaged costs nothing, and is told all the same."""
        for name in sorted(self._names(folder) - set(named)):
            self.findings.add_note(FindingKind.ORPHAN, name, problem)
            try:
                self.repository.get_object(folder, name.removeprefix(folder))
            except ObjectNotFound:
                continue
            except (IntegrityError, StoreError, UnsupportedFormat) as error:
                self.findings.add_failure(name, error, Severity.WARNING)

    def _names(self, folder: str) -> set[str]:
        return {name for name in self.sizes if name.startswith(folder)}


def _is_covered(content: MapObject, covered_blocks: int) -> bool:
    """Tell whether a map has a run for each block from `covered_blocks` to the end of its image."""
    runs = content.runs
    reach = np.concatenate((np.full(1, covered_blocks, np.uint64), end_blocks(runs)))
    # Runs are in order and apart: each must begin no later than where those before it, and the base, end.
    begins = np.concatenate((runs["first_block"], np.full(1, content.block_count, np.uint64)))
    return bool(np.all(begins <= np.maximum(reach, np.uint64(covered_blocks))))


def _tell_labels(manifests: list[Manifest]) -> str:
    more = f" and {len(manifests) - 1} more" if len(manifests) > 1 else ""
    return f"snapshot {manifests[0].label}{more}"
