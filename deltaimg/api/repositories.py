# SPDX-License-Identifier: Apache-2.0
"""Repositories: create, open and list them, and the locks in them."""

from __future__ import annotations

import grp
import logging
import os
import stat
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial

from deltaimg import __version__
from deltaimg.api.keys import AskKey, check_encryption, is_key_given, unlock
from deltaimg.api.vanished import remember_snapshots
from deltaimg.crypto.key_slots import Key
from deltaimg.engine.progress import Progress, stage
from deltaimg.errors import (
    OnlyWrites,
    RepositoryExists,
    RepositoryLocked,
    RepositoryNotFound,
    SnapshotNotFound,
    UsageError,
)
from deltaimg.options.definition import validate
from deltaimg.options.store import StoreOptions
from deltaimg.processes import name_own_process
from deltaimg.repo import host_memory
from deltaimg.repo.creation import create_repository as create_in
from deltaimg.repo.groups import find_group, list_group_images
from deltaimg.repo.host_places import accept_exchange, forget_place
from deltaimg.repo.lock_holder import FoundLock
from deltaimg.repo.lock_holder import list_locks as find_locks
from deltaimg.repo.lock_waiting import LockWaiting
from deltaimg.repo.lock_watch import remove_lock as remove_found_lock
from deltaimg.repo.lock_watch import remove_stale_locks
from deltaimg.repo.objects import Objects
from deltaimg.repo.repository import Repository, SnapshotRef, list_refs
from deltaimg.repo.reserve import make_reserve
from deltaimg.repo.selector import check_image_name, select_snapshot
from deltaimg.repo.snapshots import DamagedSnapshot as DamagedSnapshot
from deltaimg.repo.snapshots import Snapshot, load_snapshot, load_snapshots
from deltaimg.store.absent import explain_absence, find_unmounted
from deltaimg.store.cached_packs import find_cached_packs
from deltaimg.store.compose import compose_store
from deltaimg.store.interface import HasGroups, Store
from deltaimg.store.open import open_store
from deltaimg.store.wrapped import find_innermost

_log = logging.getLogger(__name__)


def create_repository(
    location: str,
    options: StoreOptions | None = None,
    *,
    group: str | int | None = None,
    like: Repository | None = None,
    key: Key | None = None,
    is_padded: bool | None = None,
) -> Repository:
    """Make a new, empty repository at `location`, which must be empty or not exist.

    Args:
        options: how its store may be used.
        group: name or number of a group whose members all may write to it, whatever their umask says.
        like: a repository in whose family the new one is to be, so that a sync between the two copies records as they are.
        key: encrypts the repository, and opens it from then on. Without one nothing in it is encrypted.
        is_padded: what is encrypted is padded, so that its sizes say less of content; see docs/security.md. Needs a key. None:
            as `like` has it, if both are encrypted; else not.

    Raises:
        UsageError: it is to be padded, and there is no key.
    """
    if is_padded and key is None:
        raise UsageError("only an encrypted repository is padded", hint="give --encryption passphrase or keyfile")
    if is_padded is None:
        is_padded = key is not None and like is not None and like.config.is_padded
    store = _open_store(location, options)
    folder = store.properties.folder
    if folder is not None and _is_no_folder(folder):
        raise RepositoryExists(location, "is not a folder")
    share = _plan_share(store, group)
    if folder is not None and (unmounted := find_unmounted(folder)) is not None:
        _log.warning("%s is not mounted: the repository is made on the disk below it", unmounted)
    repository = create_in(
        store,
        created=datetime.now(UTC),
        software=f"deltaimg {__version__}",
        like=like,
        key=key,
        is_padded=is_padded,
        prepare=share,
    )
    make_reserve(repository)
    if key is None:
        host_memory.forget_encrypted(location)
        forget_place(repository)
    else:
        host_memory.note_encrypted(location)
        accept_exchange(repository, datetime.now(UTC))
    return repository


def open_repository(
    location: str,
    options: StoreOptions | None = None,
    *,
    cache_folder: str | None = None,
    key: Key | None = None,
    ask: AskKey | None = None,
    may_be_plain: bool = False,
    needs_key: bool = True,
    may_only_write: bool = False,
) -> Repository:
    """Open the repository at `location`: the path of a folder, or a URL, as `store.open` has them.

    Args:
        options: how its store may be used, and where the key of an encrypted repository is.
        cache_folder: where this host keeps metadata and packs of remote repositories, such as `find_cache_folder()`; None
            keeps nothing. Not for what looks for damage in the store.
        key: of an encrypted repository, instead of one that options or the environment name.
        ask: called for the key of an encrypted repository where none is given.
        may_be_plain: a repository without encryption is opened though a key is given, which may be another's.
        needs_key: if not, an encrypted repository is opened without a key where none is given: locks, packs and parity can be
            read, and whatever needs a key raises KeyNeeded.
        may_only_write: the key of a write-only host will do. It counts as none where no key is needed.

    Raises:
        OnlyWrites: the key that is given is such a one, and will not do.
        RepositoryNotFound: there is none. KeyNeeded, WrongKey: it is encrypted, and there is no key, or a wrong one.
        EncryptionMissing: it is not encrypted, though a key is given, or was when this host last opened it.
    """
    store = _open_store(location, options, cache_folder)
    folder = store.properties.folder
    if folder is not None and _is_no_folder(folder):
        raise RepositoryNotFound(location, "is not a folder, so not a repository")
    try:
        if needs_key or key is not None or is_key_given(options):
            repository = Repository.open(store, partial(unlock, options=options, key=key, ask=ask))
        else:
            repository = Repository.open_locked(store)
    except RepositoryNotFound as error:
        hint = None if folder is None else explain_absence(folder)
        raise RepositoryNotFound(location, error.problem, hint=hint) from error
    if repository.only_writes and (cached := find_cached_packs(store)) is not None:
        cached.stop_adding()
    if repository.only_writes and not may_only_write:
        if needs_key:
            raise OnlyWrites(location)
        repository = repository.lock()
    check_encryption(repository, is_key_given=not may_be_plain and (key is not None or is_key_given(options)))
    return repository


def is_remote(location: str) -> bool:
    """Return whether a location is of a store on another host; nothing is read."""
    store = open_store(location)
    try:
        return store.properties.is_remote
    finally:
        store.close()


def list_snapshots(repository: Repository, image: str | None = None) -> list[Snapshot | DamagedSnapshot]:
    """Return all snapshots, or those of one image, or of the members of a group, oldest first within an image."""
    found = list(load_snapshots(repository, None if image is None else check_image_name(image)))
    remember_snapshots(repository, image)
    if image is not None and not found:
        for member in list_group_images(repository, image):
            found += list_snapshots(repository, member)
    return found


def list_snapshot_names(location: str) -> list[SnapshotRef]:
    """Return which snapshots the repository at `location` has, as its listing shows them: no key is needed for that."""
    return list_refs(Objects(open_store(location, writer=name_own_process)))


def find_snapshot(repository: Repository, selector: str) -> Snapshot:
    """Return the snapshot that `selector` means: `vm1`, `vm1@latest~2`, `vm1@2026-11-23`, an id or its beginning."""
    try:
        ref = select_snapshot(repository, selector)
    except SnapshotNotFound as error:
        group = find_group(repository, selector)
        if group is None:
            raise
        members = ", ".join(each.label for each in group.snapshots[:4])
        hint = f"its members are {members}; 'deltaimg restore {selector} --into FOLDER' restores all of them"
        raise UsageError(f"'{selector}' is a group of images, and no single snapshot", hint=hint) from error
    return load_snapshot(repository, ref)


def list_locks(repository: Repository) -> list[FoundLock]:
    """Return the locks in a repository: of active runs, of dead ones, and those that cannot be read."""
    return find_locks(repository.objects)


def remove_lock(repository: Repository, name: str, *, is_forced: bool = False) -> FoundLock:
    """Remove the lock of an image, or one that `list_locks` labels so, and return it: the first of several.

    Args:
        is_forced: also if its holder is alive; that run will notice before it commits, and fail.

    Raises:
        UsageError: there is no such lock. RepositoryLocked: its holder is alive.
    """
    found = [each for each in find_locks(repository.objects) if each.label == name]
    if not found:
        raise UsageError(f"there is no lock '{name[:60]}'", hint="'deltaimg unlock' lists what there is")
    if is_forced:
        for each in found:
            remove_found_lock(repository.objects, each)
    elif held := remove_stale_locks(repository.objects, found, repository.lock_waiting):
        raise RepositoryLocked(f"'{name}'", held[0].describe(), hint="wait until it is done, or remove it with --force")
    return found[0]


def _open_store(location: str, options: StoreOptions | None, cache_folder: str | None = None) -> Store:
    if options is not None:
        validate(options)
    return compose_store(location, options, writer=name_own_process, cache_folder=cache_folder)


def _plan_share(store: Store, group: str | int | None) -> Callable[[], None]:
    """Return what lets a group write to a store, once it is known to be empty; raises UsageError where that cannot be."""
    if group is None:
        return lambda: None
    number = _find_group(group)
    innermost = find_innermost(store)
    if not isinstance(innermost, HasGroups):
        raise UsageError(f"{store.location}: no group of this host can own what is there")
    return partial(innermost.share, number)


def _find_group(group: str | int) -> int:
    """Return a group's number; raises UsageError where there is no group of this name."""
    if isinstance(group, int) or group.isdecimal():
        return int(group)
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError as error:
        raise UsageError(
            f"there is no group '{group}' here", hint="'getent group' lists them; a number will do, too"
        ) from error


def _is_no_folder(location: str) -> bool:
    """Whether there is something at this place, or on the way to it, that is no folder."""
    try:
        return not stat.S_ISDIR(os.stat(location).st_mode)
    except NotADirectoryError:
        return True
    except OSError:
        return False


def wait_for_locks(wait_s: int, progress: Progress) -> LockWaiting:
    """Return what `Repository.lock_waiting` may be: how long locks of others are waited for, shown as a stage."""
    return LockWaiting(wait_s=wait_s, show=partial(stage, progress))
