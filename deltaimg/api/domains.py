# SPDX-License-Identifier: Apache-2.0
"""Guests: their disks and their configuration, found where their hypervisor has them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from msgspec import Struct
from msgspec.structs import replace

from deltaimg.api.groups import backup_group, plan_group_backup
from deltaimg.api.paused_guests import add_marks, was_left_paused
from deltaimg.domains.find import find_domain, read_domain, resume_domain
from deltaimg.domains.interface import Domain, LeftOut, choose_disks
from deltaimg.engine.backup.forecast import BackupForecast
from deltaimg.engine.progress import NoProgress, Progress
from deltaimg.format.manifest import Manifest
from deltaimg.options.backup import BackupOptions
from deltaimg.repo.repository import Repository

Result = TypeVar("Result")


class Guest(Struct, frozen=True):
    """A guest, and which of its disks are backed up."""

    domain: Domain
    disks: Mapping[str, str]
    """The path of each, by its name."""
    left_out: tuple[LeftOut, ...]

    @property
    def formats(self) -> dict[str, str]:
        """The format of each disk that is a file with one of its own, as its configuration says."""
        return {each.name: each.format for each in self.domain.disks if each.format and each.name in self.disks}

    @property
    def name(self) -> str:
        """What its group is called."""
        return self.domain.name


def find_guest(name: str, *, config_path: str | None = None, excluded: Sequence[str] = ()) -> Guest:
    """Return a domain of Xen or libvirt on this host, or the one that a configuration file describes.

    Args:
        name: under which its snapshots are stored, too. excluded: names or paths of disks that are left out.

    Raises:
        GuestUnusable: it is not known here, or a disk is not on this host. UsageError: no such disk is excluded.
    """
    domain = find_domain(name) if config_path is None else replace(read_domain(config_path), name=name)
    disks, left_out = choose_disks(domain, excluded)
    return Guest(domain, disks, left_out)


def backup_guest(
    repository: Repository,
    guest: Guest,
    options: BackupOptions | None = None,
    *,
    progress: Progress | None = None,
) -> list[Manifest]:
    """Store the disks of a guest and its configuration as a snapshot of the group of its name; as `backup_group`.

    A guest that runs is paused while its disks are frozen, unless `options` have commands of their own. One that a backup left
    paused, since it and what watched over it were killed, is resumed first.

    Raises:
        GuestUnusable: it cannot be resumed.
    """
    warn = (progress or NoProgress()).warn
    if guest.domain.is_paused and was_left_paused(guest.domain):
        guest = replace(guest, domain=resume_domain(guest.domain))
        warn(f"guest {guest.name} was left paused by a backup that died, and is resumed")
    elif guest.domain.is_paused:
        warn(f"guest {guest.name} is paused, and stays so: '{guest.domain.resume}' resumes it")
    return _act_on_group(backup_group, repository, guest, options, progress)


def plan_guest_backup(
    repository: Repository,
    guest: Guest,
    options: BackupOptions | None = None,
    *,
    progress: Progress | None = None,
) -> dict[str, BackupForecast]:
    """Return what `backup_guest` would store, by image; nothing is stored."""
    return _act_on_group(plan_group_backup, repository, guest, options, progress)


def _act_on_group(
    act: Callable[..., Result],
    repository: Repository,
    guest: Guest,
    options: BackupOptions | None,
    progress: Progress | None,
) -> Result:
    """Call `backup_group` or `plan_group_backup` with what a guest is made of."""
    chosen = _add_commands(guest.domain, options or BackupOptions())
    return act(
        repository,
        guest.name,
        guest.disks,
        chosen,
        config=guest.domain.config,
        formats=guest.formats,
        progress=progress,
    )


def _add_commands(domain: Domain, options: BackupOptions) -> BackupOptions:
    if not domain.pause or domain.is_paused or options.pre_freeze is not None or options.post_freeze is not None:
        return options
    pause, resume = add_marks(domain)
    return dataclasses.replace(options, pre_freeze=pause, post_freeze=resume)
