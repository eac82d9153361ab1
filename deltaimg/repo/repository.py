# SPDX-License-Identifier: Apache-2.0
"""A repository: a store, its config, and the checks that every object passes on its way in and out."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

from blake3 import blake3

from deltaimg.errors import (
    DigestMismatch,
    Malformed,
    NotAnObject,
    ObjectExists,
    ObjectNotFound,
    RepositoryExists,
    RepositoryNotFound,
)
from deltaimg.format.config import CONFIG_NAME, Config, build_config, parse_config
from deltaimg.format.framing import SALT_BYTES, name_object, salt_object
from deltaimg.format.manifest import (
    SNAPSHOTS,
    Manifest,
    build_manifest,
    format_time,
    parse_manifest,
    parse_time,
    split_object_name,
)
from deltaimg.format.pack import PACKS, pack_name
from deltaimg.repo.lock_waiting import LockWaiting
from deltaimg.repo.objects import Objects, own_layout
from deltaimg.repo.quarantine import QUARANTINE
from deltaimg.store.interface import Confirm, Parts, Store, always

_DIGEST = re.compile(r"[0-9a-f]{64}")

_LITTER = re.compile(
    r"\.(DS_Store|nfs.*|_.*|Trash.*|Spotlight-V100|fseventsd|snapshots?|directory)|lost\+found|@eaDir|#recycle|#snapshot"
    r"|System Volume Information|\$RECYCLE\.BIN|Thumbs\.db|desktop\.ini",
    re.IGNORECASE,
)
"""What file systems and file managers put into an empty folder."""


@dataclass(frozen=True, slots=True)
class Keys:
    """One key for each use of keyed BLAKE3, so that a digest of one kind never passes for one of another."""

    block: bytes
    record: bytes
    root: bytes

    @classmethod
    def derive(cls, digest_key: bytes) -> Keys:
        names = ("block digest", "record id", "root digest")
        return cls(*(blake3(digest_key, derive_key_context=f"deltaimg 2026 {name}").digest() for name in names))


@dataclass(frozen=True, slots=True, order=True)
class SnapshotRef:
    """A snapshot as the listing of a repository shows it. Sorts by image, then time."""

    image: str
    time: str
    id: str

    @classmethod
    def of(cls, manifest: Manifest) -> SnapshotRef:
        """Return what the listing shows of the snapshot of a manifest."""
        return cls(manifest.image, manifest.time, manifest.id)

    @property
    def taken_at(self) -> datetime:
        return parse_time(self.time)

    @property
    def object_name(self) -> str:
        return f"{SNAPSHOTS}{self.image}/{self.time}-{self.id}"

    @property
    def label(self) -> str:
        return f"{self.image}@{self.id[:8]}"


class Repository:
    """An open repository. Methods may raise StoreError, IntegrityError and UnsupportedFormat."""

    def __init__(self, store: Store, config: Config) -> None:
        self.store = store if isinstance(store, Objects) else Objects(store)
        self.config = config
        self.keys = Keys.derive(config.digest_key_bytes)
        self.lock_waiting = LockWaiting()

    @classmethod
    def create(
        cls, store: Store, *, created: datetime, software: str, prepare: Callable[[], None] = lambda: None
    ) -> Repository:
        """Make a repository in an empty store; raises RepositoryExists when there is anything in it.

        Args:
            prepare: called once the store is known to be empty, before anything is put into it.
        """
        for name in _list_content(store):
            if name == CONFIG_NAME:
                raise RepositoryExists(store.location, "there is a repository already")
            raise RepositoryExists(store.location, f"there is something else already ('{name}')")
        config = Config(
            repository_id=secrets.token_hex(16),
            created=format_time(created),
            digest_key=secrets.token_hex(32),
            software=software,
        )
        prepare()
        try:
            store.put(CONFIG_NAME, [build_config(config)])
        except ObjectExists as error:
            raise RepositoryExists(store.location, "there is a repository already") from error
        return cls(store, config)

    @classmethod
    def open(cls, store: Store) -> Repository:
        """Open the repository in `store`; raises RepositoryNotFound when it holds none."""
        objects = store if isinstance(store, Objects) else Objects(store)
        try:
            data = objects.get(CONFIG_NAME)
        except NotAnObject:
            raise
        except ObjectNotFound as error:
            problem = "is not a repository: it has no 'config'" if any(_list_content(store)) else None
            raise RepositoryNotFound(store.location, problem) from error
        return cls(objects, parse_config(data, f"{store.location}/{CONFIG_NAME}"))

    # -- write-once objects, named by content ------------------------------------------------------------------------

    def put_object(self, folder: str, parts: Parts, *, salt: bytes | None = None) -> tuple[str, int]:
        """Keep an object under the digest of its bytes; return that digest and the object's size.

        Args:
            salt: of `SALT_BYTES`, for tests; random where not given, so that a name never comes back after it was deleted.
        """
        salted = salt_object(parts, secrets.token_bytes(SALT_BYTES) if salt is None else salt)
        digest = name_object(salted)
        return digest, self.store.put(pack_name(digest) if folder == PACKS else folder + digest, salted)

    def get_object(self, folder: str, digest: str) -> bytes:
        """Return the object of this name, which must be the digest of its bytes; raises DigestMismatch."""
        name = folder + digest
        for _ in range(2):  # Once more before it counts as damage: a read may have failed without saying so.
            data = self.store.get(name)
            found = name_object([data])
            if found == digest:
                return data
        if not _DIGEST.fullmatch(digest):
            raise Malformed(name, 0, "is not named as an object is")
        raise DigestMismatch(name, 0, "the object", bytes.fromhex(digest), bytes.fromhex(found))

    # -- snapshots ---------------------------------------------------------------------------------------------------

    def list_snapshots(self, image: str | None = None) -> list[SnapshotRef]:
        """Return what snapshots there are, of one image or of all, oldest first within an image."""
        prefix = SNAPSHOTS if image is None else f"{SNAPSHOTS}{image}/"
        names = (split_object_name(found.name) for found in self.store.list(prefix))
        return sorted(SnapshotRef(*parts) for parts in names if parts is not None)

    def list_quarantined(self, image: str | None = None) -> dict[SnapshotRef, list[str]]:
        """Return the snapshots whose damaged manifests a repair has moved to quarantine, and the names of these there."""
        found: dict[SnapshotRef, list[str]] = {}
        for each in self.store.list(QUARANTINE + (SNAPSHOTS if image is None else f"{SNAPSHOTS}{image}/")):
            name = each.name.removeprefix(QUARANTINE)
            # A second one of the same name has a number behind it.
            parts = split_object_name(name) or split_object_name(name.rpartition(".")[0])
            if parts is not None:
                found.setdefault(SnapshotRef(*parts), []).append(each.name)
        return found

    def load_manifest(self, ref: SnapshotRef) -> Manifest:
        """Return the manifest of a snapshot; raises ObjectNotFound if it is not there, IntegrityError or UnsupportedFormat."""
        return parse_manifest(self.store.get(ref.object_name), ref.object_name)

    def has_snapshot(self, ref: SnapshotRef) -> bool:
        """Tell whether a snapshot is there now."""
        return ref in self.list_snapshots(ref.image)

    def remove_snapshot(self, ref: SnapshotRef) -> None:
        """Remove a snapshot's manifest: from then on it does not exist."""
        self.store.delete(ref.object_name)

    def commit(self, manifest: Manifest, confirm: Confirm = always) -> int:
        """Store a manifest: the commit. Return its size."""
        data = build_manifest(manifest)
        parse_manifest(data, manifest.object_name)
        return self.store.put(manifest.object_name, [data], confirm)


def _list_content(store: Store) -> Iterator[str]:
    """Yield the objects of a repository in a store, `config` first, then what else there is in it."""
    foreign: list[str] = []
    names = [found.name for found in store.list("", own_layout(lambda name, _what: foreign.append(name)))]
    yield from sorted(names, key=lambda name: name != CONFIG_NAME)
    yield from (name for name in foreign if _LITTER.fullmatch(name.partition("/")[0]) is None)
