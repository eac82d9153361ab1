# SPDX-License-Identifier: Apache-2.0
"""Several images restored by one call: the disks of a group, or the newest snapshots of all images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

from msgspec import Struct

from deltaimg.api.guest_configs import OpenedConfig, find_config_name, open_config
from deltaimg.api.targets import choose_targets
from deltaimg.api.vanished import warn_of_missing
from deltaimg.engine.progress import NoProgress, Progress
from deltaimg.engine.restore.many import restore_all
from deltaimg.engine.restore.run import RestoreResult
from deltaimg.errors import ContentDamaged, DeltaimgError, ImageError
from deltaimg.format.manifest import name_member
from deltaimg.options.restore import RestoreOptions
from deltaimg.repo.groups import CONFIG_DISK, GroupSnapshot, select_group
from deltaimg.repo.newest import find_newest
from deltaimg.repo.repository import Repository
from deltaimg.repo.snapshots import Snapshot, is_of_one_snapshot


class RestoredGroup(Struct, frozen=True):
    """What a restore of a group wrote."""

    snapshot: GroupSnapshot
    results: dict[str, RestoreResult]
    """Of the disks, by target, in order."""
    config_path: str | None = None
    """Where the configuration of a guest was written to; None where there is none, or no place for it."""


class RestoredImages(Struct, frozen=True):
    """What a restore of many images wrote."""

    results: dict[str, RestoreResult]
    """By target, in order."""
    config_paths: dict[str, str]
    """Where the configurations of guests were written to, by guest."""
    failed: dict[str, DeltaimgError]
    """What could not be restored as a whole, by image or group. With `keep_going`, the rest of it may be among `results`."""


def restore_group(
    repository: Repository,
    selector: str,
    folder: str | None,
    options: RestoreOptions | None = None,
    *,
    moves: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> RestoredGroup:
    """Write every disk of a group's snapshot into a folder, or to where `moves` say, and the configuration of a guest.

    `/dev/vg/web1-root` is written to `<folder>/web1-root`: a file, or the logical volume where the folder is one of a volume
    group. Disks that had the same name get that of their image. All targets are opened before anything is written. The
    configuration is written into the folder as `<group>.config`, with the new paths of the disks, unless it is one of devices.

    Args:
        moves: where disks go that were at a path, or below a folder.

    Raises:
        GroupIncomplete: members are missing. Else as `restore`, of the first target that cannot be written to.
    """
    options = options or RestoreOptions()
    found = select_group(repository, selector)
    found.check_whole()
    targets = choose_targets(
        [each.manifest for each in _list_disks(found)], folder, moves or {}, _name_configs([found], folder)
    )
    with ExitStack() as stack:
        config = open_config(repository, found, folder, targets, options)
        if config is not None:
            stack.callback(config.target.abort)
        done = restore_all(repository, targets, options, progress=progress)
        return RestoredGroup(found, done.results, None if config is None else config.write())


def restore_newest(
    repository: Repository,
    folder: str | None,
    names: Sequence[str] = (),
    options: RestoreOptions | None = None,
    *,
    moves: Mapping[str, str] | None = None,
    on_restored: Callable[[str, RestoreResult], None] = lambda _target, _result: None,
    progress: Progress | None = None,
) -> RestoredImages:
    """Write the newest snapshot of every image into a folder, or to where `moves` say, as `restore_group` does.

    Images of a group are restored as of its newest complete snapshot, with the configuration of a guest. A snapshot or target
    that fails is in the result's `failed`, and costs the others nothing.

    Args:
        names: of images and groups; all, where there are none. on_restored: called with each target once it is complete.

    Raises:
        SnapshotNotFound: there is no snapshot, or none of a name. UsageError, ImageError: a target cannot be used, or a file
        system is too small for all; nothing was written.
    """
    options, progress = options or RestoreOptions(), progress or NoProgress()
    found = find_newest(repository, names, progress.warn)
    warn_of_missing(repository, names, progress)
    failed = dict(found.failed)
    disks = [each for group in found.groups for each in _list_disks(group)]
    manifests = sorted((each.manifest for each in (*found.alone, *disks)), key=lambda each: each.image)
    targets = choose_targets(manifests, folder, moves or {}, _name_configs(found.groups, folder))
    configs: dict[str, OpenedConfig] = {}
    paths: dict[str, str] = {}
    with ExitStack() as stack:
        for group in found.groups:
            name = group.group.name
            with _noting(name_member(name, CONFIG_DISK), failed):
                config = open_config(repository, group, folder, targets, options)
                if config is not None:
                    stack.callback(config.target.abort)
                    configs[name] = config
        done = restore_all(
            repository, targets, options, stops_at_failure=False, on_restored=on_restored, progress=progress
        )
        for name, config in configs.items():
            with _noting(name_member(name, CONFIG_DISK), failed, is_written=True):
                paths[name] = config.write()
    failed |= {targets[target].image: error for target, error in done.failed.items()}
    for each in done.results.values():
        if each.damage:
            failed[each.manifest.image] = ContentDamaged(each.manifest.label, each.damage, is_rest_restored=True)
    return RestoredImages(done.results, paths, failed)


@contextmanager
def _noting(name: str, failed: dict[str, DeltaimgError], *, is_written: bool = False) -> Iterator[None]:
    """Note what is wrong with the configuration of a guest, or with its file once that is written."""
    try:
        yield
    except DeltaimgError as error:
        if not (is_of_one_snapshot(error) or (is_written and isinstance(error, ImageError))):
            raise
        failed[name] = error


def _list_disks(found: GroupSnapshot) -> list[Snapshot]:
    """Return the members of a group's snapshot but for the configuration of a guest."""
    config = found.find(CONFIG_DISK)
    return [each for each in found.snapshots if each is not config]


def _name_configs(found: Sequence[GroupSnapshot], folder: str | None) -> list[str]:
    """Return what the configurations of guests are going to be called in the folder."""
    names = (find_config_name(each, folder) for each in found)
    return [name for name in names if name is not None]
