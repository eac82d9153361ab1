# SPDX-License-Identifier: Apache-2.0
"""Repair of a damaged repository, and parity."""

from __future__ import annotations

import os
from concurrent.futures import Executor
from datetime import UTC, datetime

from deltaimg.api.clusters import wrap_executor
from deltaimg.api.keys import AskKey
from deltaimg.api.repositories import open_repository
from deltaimg.engine.cluster import Cluster
from deltaimg.engine.parity.add import ParityAdded
from deltaimg.engine.parity.add import add_parity as add_parity_to_packs
from deltaimg.engine.parity.protection import ParityProtection
from deltaimg.engine.parity.protection import survey_parity as survey_parity_of_packs
from deltaimg.engine.parity.repair import PacksRepaired
from deltaimg.engine.parity.repair import repair_packs as repair_packs_by_parity
from deltaimg.engine.progress import Progress
from deltaimg.engine.repair.run import RepairReport
from deltaimg.engine.repair.run import repair as repair_repository
from deltaimg.errors import IntegrityError, NotAnObject, RepositoryNotFound, WrongKey
from deltaimg.format.pack import pack_name as pack_name
from deltaimg.image.open_source import open_source
from deltaimg.options.definition import validate
from deltaimg.options.parity import DEFAULT_PERCENT, ParityOptions
from deltaimg.options.store import StoreOptions
from deltaimg.processes import name_own_process
from deltaimg.repo.key_slots import load_key_slots
from deltaimg.repo.objects import Objects
from deltaimg.repo.repository import Repository
from deltaimg.store.compose import compose_store
from deltaimg.store.interface import Store
from deltaimg.store.open import is_store_address


def open_for_repair(
    location: str, from_path: str | None = None, options: StoreOptions | None = None, *, ask: AskKey | None = None
) -> Repository:
    """Open a repository also where its `config`, or all key slots, are lost, if `from_path` is a copy of it or of its family.

    `repair` with the same `from_path` then puts a `config`, and key slots, in place.

    Args:
        options: how both stores may be used, and where the key of encrypted ones is.
        ask: as of `open_repository`.
    """
    try:
        return open_repository(location, options, ask=ask)
    except WrongKey:
        store = compose_store(location, options, writer=name_own_process)
        repository = None
        if not load_key_slots(Objects(store)).slots:
            repository = _open_like(store, from_path, options, ask)
        if repository is None or repository.secret is None:
            raise
        return Repository(store, Repository.read_config(store), repository.secret)
    except (IntegrityError, RepositoryNotFound, NotAnObject) as error:
        repository = _open_like(compose_store(location, options, writer=name_own_process), from_path, options, ask)
        if repository is not None:
            return repository
        if isinstance(error, IntegrityError) or error.hint is None:
            error.hint = "'deltaimg repair --from COPY' takes it from another copy of the repository"
        raise


def _open_like(
    store: Store, from_path: str | None, options: StoreOptions | None, ask: AskKey | None
) -> Repository | None:
    """Open the repository in `store` with config and secret of another copy; None where there is none, or it is none of it."""
    folder = store.properties.folder
    if from_path is None or not _is_repository(from_path) or not (folder is None or os.path.isdir(folder)):
        return None
    with open_repository(from_path, options, ask=ask) as copy:
        return Repository.open_like(store, copy)


def repair(
    repository: Repository,
    from_path: str | None = None,
    options: StoreOptions | None = None,
    *,
    ask: AskKey | None = None,
    is_dry_run: bool = False,
    progress: Progress | None = None,
) -> RepairReport:
    """Repair a damaged repository as far as possible; the report's `damage` lists what stays damaged.

    Args:
        from_path: where lost content is taken from: another copy of the repository, or a member of its family, by any address;
            or an image.
        options: how the store of another copy may be used, and where its key is.
        ask: as of `open_repository`.
        is_dry_run: change nothing.
    """
    if from_path is None:
        return repair_repository(repository, is_dry_run=is_dry_run, progress=progress)
    if _is_repository(from_path):
        with open_repository(from_path, options, ask=ask) as copy:
            return repair_repository(repository, copy=copy, is_dry_run=is_dry_run, progress=progress)
    source = open_source(from_path)
    try:
        return repair_repository(repository, source=source, is_dry_run=is_dry_run, progress=progress)
    finally:
        source.close()


def _is_repository(place: str) -> bool:
    """Return whether a place that may be an image means a repository: a folder, or an address."""
    return os.path.isdir(place) or is_store_address(place)


def add_parity(
    repository: Repository,
    options: ParityOptions | None = None,
    *,
    is_thorough: bool = False,
    executor: Executor | Cluster | None = None,
    progress: Progress | None = None,
) -> ParityAdded:
    """Protect all packs by Reed-Solomon parity, reading only those that have too little of it.

    Args:
        is_thorough: read all parity that there is, and replace what is damaged.
        executor: where parity is computed: processes that see the repository. This process, if not given.

    Raises:
        ParityUnusable: pyeclib, which computes it, is not installed.
    """
    options = options or ParityOptions()
    validate(options)
    percent = DEFAULT_PERCENT if options.percent is None else options.percent
    return add_parity_to_packs(
        repository,
        percent,
        clock=lambda: datetime.now(UTC),
        is_thorough=is_thorough,
        progress=progress,
        cluster=wrap_executor(executor),
    )


def survey_parity(repository: Repository, *, is_thorough: bool = False) -> ParityProtection:
    """Return which packs have parity, and what loss each group of them survives; with `is_thorough`, read it all for damage."""
    return survey_parity_of_packs(repository, is_thorough=is_thorough)


def repair_packs(repository: Repository, *, progress: Progress | None = None) -> PacksRepaired:
    """Verify every pack by its name, and repair those that are damaged or missing from parity."""
    return repair_packs_by_parity(repository, clock=lambda: datetime.now(UTC), progress=progress)
