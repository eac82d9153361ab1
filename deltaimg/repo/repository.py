# SPDX-License-Identifier: Apache-2.0
"""A repository: its objects, its config, and its snapshots by name."""

from __future__ import annotations

import copy
import re
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING

from blake3 import blake3
from msgspec import Struct
from msgspec.structs import replace

from deltaimg.crypto.sealer import make_sealer
from deltaimg.crypto.secret import HostSecret, Secret
from deltaimg.errors import (
    KeyNeeded,
    NotAnObject,
    ObjectNotFound,
    OnlyWrites,
    RepositoryNotFound,
)
from deltaimg.format.config import CONFIG_NAME, Config, parse_config
from deltaimg.format.manifest import SNAPSHOTS, Manifest, parse_time, split_object_name
from deltaimg.format.map import MAPS
from deltaimg.format.pack import PACKS
from deltaimg.format.signature import SIGNATURES
from deltaimg.repo.keys import QUARANTINE
from deltaimg.repo.lock_waiting import LockWaiting
from deltaimg.repo.object_kinds import MANIFEST
from deltaimg.repo.objects import Objects, repository_layout
from deltaimg.store.interface import Confirm, Store, always
from deltaimg.store.planned import PlannedStore

if TYPE_CHECKING:
    from deltaimg.repo.manifest_check import ManifestCheck

_LITTER = re.compile(
    r"\.(DS_Store|nfs.*|_.*|Trash.*|Spotlight-V100|fseventsd|snapshots?|directory)|lost\+found|@eaDir|#recycle|#snapshot"
    r"|System Volume Information|\$RECYCLE\.BIN|Thumbs\.db|desktop\.ini",
    re.IGNORECASE,
)
"""What file systems and file managers put into an empty folder."""


class Keys(Struct, frozen=True):
    """One key for each use of keyed BLAKE3, so that a digest of one kind never passes for one of another."""

    block: bytes
    record: bytes
    root: bytes

    @classmethod
    def derive(cls, digest_key: bytes) -> Keys:
        """Derive the keys from the digest key of a repository."""
        names = ("block digest", "record id", "root digest")
        return cls(*(blake3(digest_key, derive_key_context=f"deltaimg 2026 {name}").digest() for name in names))


class SnapshotRef(Struct, frozen=True, order=True):
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
        """The moment of the snapshot."""
        return parse_time(self.time)

    @property
    def object_name(self) -> str:
        """The name of its manifest in the store."""
        return f"{SNAPSHOTS}{self.image}/{self.time}-{self.id}"

    @property
    def label(self) -> str:
        """How messages name it: the image, `@` and the first 8 digits of the id."""
        return f"{self.image}@{self.id[:8]}"


class Repository:
    """An open repository. Methods may raise StoreError, IntegrityError and UnsupportedFormat."""

    def __init__(
        self, store: Store, config: Config, secret: Secret | HostSecret | None = None, *, is_locked: bool = False
    ) -> None:
        """Args: secret: of an encrypted repository, and only of one; or that of a write-only host.

        is_locked: it is encrypted, and there is no key: what needs one raises KeyNeeded; or OnlyWrites where that of a
        write-only host was given.
        """
        assert config.is_encrypted == (secret is not None or is_locked)
        sealer = None if secret is None else make_sealer(secret, is_padded=config.is_padded)
        self.objects = Objects(store, sealer, is_locked=is_locked)
        self.config, self.is_locked, self._given = config, is_locked, secret
        self.lock_waiting = LockWaiting()

    @property
    def secret(self) -> Secret | None:
        """The secret of an encrypted repository; None where there is none, or no key that reads."""
        return self._given if isinstance(self._given, Secret) else None

    @property
    def only_writes(self) -> bool:
        """Whether it was opened with the key of a write-only host: what others sealed raises OnlyWrites, and every record."""
        return isinstance(self._given, HostSecret) and not self.is_locked

    @cached_property
    def digest_key(self) -> bytes:
        """The key that all keys of digests come from; raises KeyNeeded or OnlyWrites where the repository is locked."""
        if self.is_locked:
            raise KeyNeeded(self.objects.location) if self._given is None else OnlyWrites(self.objects.location)
        return bytes.fromhex(self.config.digest_key or "") if self._given is None else self._given.digest_key

    @cached_property
    def keys(self) -> Keys:
        """The keys of digests; raises KeyNeeded."""
        return Keys.derive(self.digest_key)

    def __enter__(self) -> Repository:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close connections to the store; without it, nothing that was stored is lost."""
        self.objects.close()

    @classmethod
    def open(cls, store: Store, unlock: Callable[[Objects, Config], Secret | HostSecret] | None = None) -> Repository:
        """Open the repository in `store`.

        Args:
            unlock: returns the secret of an encrypted repository.

        Raises:
            RepositoryNotFound: there is none. KeyNeeded: it is encrypted, and `unlock` is not given. What `unlock` raises.
        """
        config = cls.read_config(store)
        if not config.is_encrypted:
            return cls(store, config)
        if unlock is None:
            raise KeyNeeded(store.location)
        return cls(store, config, unlock(Objects(store), config))

    @classmethod
    def open_locked(cls, store: Store) -> Repository:
        """Open the repository in `store` for what needs no key if it is encrypted; raises RepositoryNotFound."""
        config = cls.read_config(store)
        return cls(store, config, is_locked=config.is_encrypted)

    @classmethod
    def read_config(cls, store: Store) -> Config:
        """Return the config of the repository in `store`, which needs no key; raises RepositoryNotFound."""
        try:
            data = Objects(store).get_bytes(CONFIG_NAME)
        except NotAnObject:
            raise
        except ObjectNotFound as error:
            problem = "is not a repository: it has no 'config'" if any(list_content(store)) else None
            raise RepositoryNotFound(store.location, problem) from error
        return parse_config(data, f"{store.location}/{CONFIG_NAME}")

    def check_there(self) -> None:
        """Raise RepositoryNotFound where the store does not have this repository any more: it would list as empty."""
        store = self.objects.store
        if self.read_config(store).repository_id != self.config.repository_id:
            raise RepositoryNotFound(store.location, "another repository is here now")

    @classmethod
    def open_like(cls, store: Store, member: Repository) -> Repository | None:
        """Open a repository whose config is lost by that of another copy of it, or of a member of its family.

        Names are digests of salted bytes, so that two repositories never have one in common by chance. Those of one family may
        have packs and maps in common, but each writes signatures of its own: where there are only packs and maps, the
        repository gets an id that is new, since its own may be another than the copy's.

        Returns:
            None where the two have no object in common.
        """
        found = cls(store, member.config, member.secret)
        if found._has_any_of(member, SIGNATURES):
            return found
        if found._has_any_of(member, MAPS) or found._has_any_of(member, PACKS):
            config = member.config
            return cls(
                store, replace(config, repository_id=secrets.token_hex(16), family=config.family_id), member.secret
            )
        return None

    def _has_any_of(self, other: Repository, folder: str) -> bool:
        names = {each.name for each in other.objects.list(folder)}
        return any(each.name in names for each in self.objects.list(folder))

    def lock(self) -> Repository:
        """Return this repository, which a write-only host has opened, for what needs no key; all else raises OnlyWrites."""
        return Repository(self.objects.store, self.config, self._given, is_locked=True)

    def sealing_for(self, host: bytes) -> Repository:
        """Return this repository for what a write-only host shall be able to open; see `Objects.sealing_for`."""
        found = copy.copy(self)
        found.objects = self.objects.sealing_for(host)
        return found

    @contextmanager
    def plan_changes(self) -> Iterator[Repository]:
        """Yield this repository as it would be after changes that are made to what is yielded; the store is only read."""
        planned = PlannedStore(self.objects.store)
        try:
            yield Repository(planned, self.config, self._given, is_locked=self.is_locked)
        finally:
            planned.close()

    # -- snapshots ---------------------------------------------------------------------------------------------------

    def list_snapshots(self, image: str | None = None) -> list[SnapshotRef]:
        """Return what snapshots there are, of one image or of all, oldest first within an image."""
        return list_refs(self.objects, image)

    def list_quarantined(self, image: str | None = None) -> dict[SnapshotRef, list[str]]:
        """Return the snapshots whose damaged manifests a repair has moved to quarantine, and the names of these there."""
        found: dict[SnapshotRef, list[str]] = {}
        for each in self.objects.list(QUARANTINE + (SNAPSHOTS if image is None else f"{SNAPSHOTS}{image}/")):
            name = each.name.removeprefix(QUARANTINE)
            # A second one of the same name has a number behind it.
            parts = split_object_name(name) or split_object_name(name.rpartition(".")[0])
            if parts is not None:
                found.setdefault(SnapshotRef(*parts), []).append(each.name)
        return found

    def load_manifest(self, ref: SnapshotRef) -> Manifest:
        """Return the manifest of a snapshot; raises ObjectNotFound if it is not there, IntegrityError or UnsupportedFormat.

        A write-only host raises OnlyWrites for those of others.
        """
        return self.load_manifest_with_bytes(ref)[0]

    def load_manifest_with_bytes(self, ref: SnapshotRef) -> tuple[Manifest, bytes]:
        """Return the manifest of a snapshot and its stored bytes; raises as `load_manifest`."""
        manifest, data = self.objects.get_with_bytes(MANIFEST, ref.object_name)
        self._manifest_check.check(ref, data)
        return manifest, data

    @cached_property
    def _manifest_check(self) -> ManifestCheck:
        from deltaimg.repo.manifest_check import ManifestCheck  # which opens rosters through a repository

        return ManifestCheck(self)

    def has_snapshot(self, ref: SnapshotRef) -> bool:
        """Return whether a snapshot exists now."""
        return ref in self.list_snapshots(ref.image)

    def remove_snapshot(self, ref: SnapshotRef) -> None:
        """Remove a snapshot's manifest: from then on it does not exist."""
        self.objects.delete(ref.object_name)

    def remove_snapshots(self, refs: Iterable[SnapshotRef], confirm: Confirm = always) -> None:
        """Remove the manifests of several snapshots, in any order; `confirm` as of `Objects.delete_all`."""
        self.objects.delete_all([ref.object_name for ref in refs], confirm)

    def commit(self, manifest: Manifest, confirm: Confirm = always, data: bytes | None = None) -> int:
        """Store a manifest: the commit. Return its size.

        Args:
            data: its bytes, where it is a copy of one that was read.
        """
        if data is not None:
            return self.objects.put_bytes(manifest.object_name, [data], confirm)
        return self.objects.put(MANIFEST, manifest.object_name, manifest, confirm)


def list_content(store: Store) -> Iterator[str]:
    """Yield what there is in a store: the objects of a repository, `config` first, then what is not deltaimg's.

    What file systems and file managers put into every folder is left out.
    """
    foreign: list[str] = []
    names = [found.name for found in store.list("", repository_layout(lambda name, _what: foreign.append(name)))]
    yield from sorted(names, key=lambda name: name != CONFIG_NAME)
    yield from (name for name in foreign if _LITTER.fullmatch(name.partition("/")[0]) is None)


def list_refs(objects: Objects, image: str | None = None) -> list[SnapshotRef]:
    """Return what snapshots there are, of one image or of all, oldest first within an image; no key is needed for that."""
    prefix = SNAPSHOTS if image is None else f"{SNAPSHOTS}{image}/"
    names = (split_object_name(found.name) for found in objects.list(prefix))
    return sorted(SnapshotRef(*parts) for parts in names if parts is not None)
