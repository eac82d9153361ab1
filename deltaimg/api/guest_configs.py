# SPDX-License-Identifier: Apache-2.0
"""The configuration of a guest in a snapshot of it: returned as it was, or written with new paths of its disks."""

from __future__ import annotations

import os
from collections.abc import Mapping

from msgspec import Struct

from deltaimg.api.restore import open_snapshot
from deltaimg.api.targets import is_of_devices
from deltaimg.domains.interface import MAX_CONFIG_BYTES
from deltaimg.domains.rewrite import move_path, rewrite_paths
from deltaimg.errors import UsageError
from deltaimg.format.manifest import Manifest
from deltaimg.image.open_target import open_target
from deltaimg.image.rbd.address import is_rbd_address
from deltaimg.image.target import ImageTarget
from deltaimg.options.restore import RestoreOptions
from deltaimg.repo.groups import CONFIG_DISK, GroupSnapshot, select_group
from deltaimg.repo.repository import Repository


def read_guest_config(repository: Repository, selector: str, moves: Mapping[str, str] | None = None) -> bytes:
    """Return the configuration of a guest as it was when a snapshot of it was taken; of an incomplete one as well.

    Args:
        moves: where disks are now that were at a path, or below a folder: what is returned says so.

    Raises:
        UsageError: the snapshot has none.
    """
    found = select_group(repository, selector)
    config = found.find(CONFIG_DISK)
    if config is None:
        hint = "only 'backup --guest' stores it" if CONFIG_DISK not in found.disks else None
        raise UsageError(f"{found.label} has no configuration of a guest", hint=hint)
    text = _read_config(repository, config.manifest)
    sources = [each.manifest.source for each in found.snapshots if each is not config]
    return rewrite_paths(text, {source: move_path(source, moves or {}) for source in sources})


def find_guest_config(repository: Repository, found: GroupSnapshot) -> bytes | None:
    """Return the configuration of a guest in a snapshot of it, as it was; None where there is none."""
    config = found.find(CONFIG_DISK)
    return None if config is None else _read_config(repository, config.manifest)


def write_guest_config(config: bytes, path: str, options: RestoreOptions | None = None) -> None:
    """Write a configuration to a new file, or to the standard output (`-`); as `restore` writes images."""
    options = options or RestoreOptions()
    target = open_target(path, len(config), is_forced=options.is_forced, is_synced=options.is_synced)
    OpenedConfig(config, target).write()


class OpenedConfig(Struct, frozen=True):
    """A configuration, and the file that it is going to be written to."""

    text: bytes
    target: ImageTarget

    def write(self) -> str:
        """Write all of it, give the file its name, and return its path; nothing is left of it where that fails."""
        try:
            self.target.write(0, memoryview(self.text))
            self.target.commit()
        except BaseException:
            self.target.abort()
            raise
        return self.target.path


def find_config_name(found: GroupSnapshot, folder: str | None) -> str | None:
    """Return what the configuration of a guest is called in the folder that it is restored into.

    None where it has none, or the folder is one of devices.
    """
    config = found.find(CONFIG_DISK)
    return None if config is None or folder is None or is_of_devices(folder) else config.manifest.image


def open_config(
    repository: Repository,
    found: GroupSnapshot,
    folder: str | None,
    targets: Mapping[str, Manifest],
    options: RestoreOptions,
) -> OpenedConfig | None:
    """Open the file for a guest's configuration, which names the places of its disks; None where none is written.

    Args:
        targets: what is written, by place; of other guests as well.

    Raises:
        As `restore`, of the configuration or its file.
    """
    config, name = found.find(CONFIG_DISK), find_config_name(found, folder)
    if config is None or name is None or folder is None:
        return None
    own = {each.manifest.id for each in found.snapshots}
    paths = {
        manifest.source: target if is_rbd_address(target) else os.path.abspath(target)
        for target, manifest in targets.items()
        if manifest.id in own
    }
    text = rewrite_paths(_read_config(repository, config.manifest), paths)
    path = os.path.join(folder, name)
    target = open_target(path, len(text), is_forced=options.is_forced, is_synced=options.is_synced)
    return OpenedConfig(text, target)


def _read_config(repository: Repository, manifest: Manifest) -> bytes:
    """Return the content of a configuration, which is verified as it is read."""
    if manifest.size_bytes > MAX_CONFIG_BYTES:
        raise UsageError(f"{manifest.label} is no configuration: it has {manifest.size_bytes} bytes")
    with open_snapshot(repository, manifest.id) as reader:
        return reader.read(0, manifest.size_bytes)
