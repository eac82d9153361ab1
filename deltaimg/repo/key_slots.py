# SPDX-License-Identifier: Apache-2.0
"""The key slots of an encrypted repository: found, opened, added and removed. No data is written again for any of it.

Always  the last slot that can be read and gives the secret stays. A slot is added before the one that it replaces is removed.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from msgspec import Struct

from deltaimg.crypto.key_slots import Key, KeyFile, unwrap_secret, wrap_secret
from deltaimg.crypto.secret import HostSecret, Secret
from deltaimg.errors import (
    IntegrityError,
    KeyNeeded,
    LastKey,
    ObjectNotFound,
    OnlyWrites,
    SealBroken,
    UnsupportedFormat,
    UsageError,
    WrongKey,
)
from deltaimg.format.config import Config
from deltaimg.format.key_slot import KEYS, KeySlot, find_label_problem
from deltaimg.format.limits import MAX_KEY_SLOTS
from deltaimg.format.manifest import format_time
from deltaimg.repo.lock import ImageLock, MaintenanceLock
from deltaimg.repo.object_kinds import INDEX, KEY_SLOT, MAP, SIGNATURE, ObjectKind
from deltaimg.repo.objects import Objects
from deltaimg.repo.repository import Repository
from deltaimg.repo.roster_record import Changes, record
from deltaimg.repo.rosters import list_roster_images


class KeySlots(Struct, frozen=True):
    """The slots of a repository that can be read, in order of their creation, and the errors of the others."""

    slots: tuple[KeySlot, ...]
    damage: tuple[IntegrityError | UnsupportedFormat, ...]


def load_key_slots(objects: Objects) -> KeySlots:
    """Return the key slots of a repository; raises StoreError."""
    slots: list[KeySlot] = []
    damage: list[IntegrityError | UnsupportedFormat] = []
    for found in objects.list(KEYS):
        if len(slots) + len(damage) == MAX_KEY_SLOTS:
            damage.append(
                IntegrityError(found.name, 0, f"is one of more than {MAX_KEY_SLOTS} key slots; it is ignored")
            )
            break
        try:
            slots.append(objects.get(KEY_SLOT, found.name))
        except ObjectNotFound:
            continue
        except (IntegrityError, UnsupportedFormat) as error:
            damage.append(error)
    return KeySlots(tuple(sorted(slots, key=lambda each: (each.created, each.id))), tuple(damage))


def open_key_slots(objects: Objects, config: Config, key: Key | None) -> tuple[Secret | HostSecret, KeySlot]:
    """Return the secret of an encrypted repository, or of a write-only host, and the slot that `key` opens.

    Raises:
        KeyNeeded: no key is given. WrongKey: it opens no slot. IntegrityError, UnsupportedFormat: no slot can be read.
    """
    if key is None:
        raise KeyNeeded(objects.location)
    found = load_key_slots(objects)
    for slot in found.slots:
        secret = unwrap_secret(slot, key, family_id=config.family_id)
        if secret is not None:
            return secret, slot
    if not found.slots and found.damage:
        raise found.damage[0]
    hint = f"key slots that cannot be read were left out: {found.damage[0]}" if found.damage else None
    if not found.slots:
        hint = (
            "none is left: 'deltaimg repair --from COPY' takes them from another copy, 'deltaimg key import' makes one of a "
            "recovery text"
        )
    raise WrongKey(objects.location, key.source, hint=hint)


def add_key_slot(
    repository: Repository, key: Key, label: str, now: datetime, *, is_write_only: bool = False
) -> KeySlot:
    """Add a slot that `key` opens, and return it.

    Args:
        is_write_only: of a host that only writes.

    Raises:
        UsageError: there are as many as there may be, another has the label, or it cannot be one; a passphrase for a host that
            only writes. RepositoryLocked: keys are changed just now.
    """
    if is_write_only and not isinstance(key, KeyFile):
        raise UsageError("a passphrase cannot be write-only", hint="give --new-key-file")
    if problem := find_label_problem(label):
        raise UsageError(f"the label {problem}", hint="choose another --label")
    secret = expect_secret(repository)
    slot = wrap_secret(
        secret,
        key,
        family_id=repository.config.family_id,
        label=label,
        created=format_time(now),
        is_write_only=is_write_only,
    )
    with MaintenanceLock(repository, "key add", now) as lock:
        slots = load_key_slots(repository.objects)
        if len(slots.slots) + len(slots.damage) >= MAX_KEY_SLOTS:
            raise UsageError(f"there are {MAX_KEY_SLOTS} keys already, which is the most that there may be")
        if label and any(each.label == label for each in slots.slots):
            raise UsageError(f"there is a key '{label}' already", hint="choose another --label")
        repository.objects.put(KEY_SLOT, slot.object_name, slot, lock.check)
    return slot


def remove_key_slot(repository: Repository, name: str, now: datetime) -> KeySlot:
    """Remove the slot of this label or id, or beginning of an id, and return it.

    Raises:
        UsageError: there is none, or more than one. LastKey: it is the only one. RepositoryLocked: keys are changed just now.
    """
    expect_secret(repository)
    with MaintenanceLock(repository, "key remove", now) as lock:
        slots = load_key_slots(repository.objects).slots
        slot = find_key_slot(slots, name)
        if slot.is_write_only:
            _end_writing(repository, slot, now)
        if all(each.is_write_only or each is slot for each in slots) and not slot.is_write_only:
            raise LastKey(repository.objects.location)
        lock.check()
        repository.objects.delete(slot.object_name)
    return slot


def _end_writing(repository: Repository, slot: KeySlot, now: datetime) -> None:
    """Record of each image what there is of a write-only host, and that nothing of it is taken from now on.

    Raises:
        RepositoryLocked: a backup is running.
    """
    images = {ref.image for ref in repository.list_snapshots()} | list_roster_images(repository)
    for image in sorted(images):
        with ImageLock(repository, image, "key remove", now) as lock:
            record(repository, lock, now, Changes(removed=[slot.id]))


def replace_key_slot(repository: Repository, old: KeySlot, key: Key, now: datetime) -> KeySlot:
    """Put a slot that `key` opens in the place of `old`, and return it; raises RepositoryLocked."""
    secret = expect_secret(repository)
    slot = wrap_secret(secret, key, family_id=repository.config.family_id, label=old.label, created=format_time(now))
    with MaintenanceLock(repository, "key change", now) as lock:
        repository.objects.put(KEY_SLOT, slot.object_name, slot, lock.check)
        lock.check()
        repository.objects.delete(old.object_name)
    return slot


def find_key_slot(slots: tuple[KeySlot, ...], name: str) -> KeySlot:
    """Return the slot of this label, or with an id that begins so; raises UsageError if there is none, or more than one."""
    found = [each for each in slots if each.label == name] or [each for each in slots if each.id.startswith(name)]
    if not name or len(found) != 1:
        problem = "more than one key is" if len(found) > 1 else "there is no key"
        raise UsageError(f"{problem} '{name[:60]}'", hint="'deltaimg key list' shows labels and ids")
    return found[0]


def opens_content(repository: Repository) -> bool:
    """Return whether the secret that a repository was opened with is the one that its objects are sealed with.

    One that is empty, or of which nothing can be read, is taken to be.
    """
    kinds: tuple[ObjectKind[Any], ...] = (INDEX, MAP, SIGNATURE)
    for kind in kinds:
        for found in repository.objects.list(kind.folder):
            try:
                repository.objects.get(kind, found.name)
            except SealBroken:
                return False
            except (IntegrityError, ObjectNotFound, UnsupportedFormat):
                continue
            return True
    return True


def expect_secret(repository: Repository) -> Secret:
    """Return the secret of a repository; raises UsageError if it is not encrypted, OnlyWrites in a write-only host."""
    if repository.only_writes:
        raise OnlyWrites(repository.objects.location)
    if repository.secret is None:
        raise UsageError(f"{repository.objects.location}: the repository is not encrypted, and has no keys")
    return repository.secret
