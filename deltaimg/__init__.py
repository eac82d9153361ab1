# SPDX-License-Identifier: Apache-2.0
"""Back up disk images: one full, then small increments; any snapshot restored sparse and verified.

    import deltaimg

    repository = deltaimg.create_repository("/backup/repo")
    snapshot = deltaimg.backup(repository, "/var/lib/images/vm1.raw", "vm1")
    deltaimg.restore(repository, "vm1@latest", "/tmp/vm1.raw")
    boot_sector = deltaimg.open_snapshot(repository, "vm1").read(0, 512)

The names below are the public interface; everything else in this package may change. Importing it costs next to nothing:
each name loads what it needs when it is first used.
"""

from __future__ import annotations

# Type checkers take this name for true. To import `typing` would take as long again, in which no signal is handled yet.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from deltaimg.api.backup import backup
    from deltaimg.api.cache import clean_cache, find_cache_folder, list_cache
    from deltaimg.api.compare import compare, diff
    from deltaimg.api.domains import backup_guest, find_guest
    from deltaimg.api.files import delta_file, patch_file, sign_file
    from deltaimg.api.forecast import plan_backup
    from deltaimg.api.groups import backup_group
    from deltaimg.api.guest_configs import read_guest_config
    from deltaimg.api.keys import Passphrase, read_key_file
    from deltaimg.api.mirror import mirror, recover_mirror
    from deltaimg.api.mount import mount
    from deltaimg.api.repair import add_parity, repair, repair_packs, survey_parity
    from deltaimg.api.repositories import create_repository, list_locks, list_snapshots, open_repository, remove_lock
    from deltaimg.api.restore import open_snapshot, restore
    from deltaimg.api.restore_many import restore_group, restore_newest
    from deltaimg.api.retention import flatten, forget, forget_snapshots, pin, plan_prune, prune, tag, unpin
    from deltaimg.api.sync import plan_sync, sync
    from deltaimg.api.verification import check, verify
    from deltaimg.engine.content.reader import SnapshotReader
    from deltaimg.engine.progress import Progress
    from deltaimg.errors import DeltaimgError
    from deltaimg.format.manifest import Manifest
    from deltaimg.options.backup import BackupOptions
    from deltaimg.options.bandwidth import parse_bandwidth
    from deltaimg.options.files import DeltaOptions, PatchOptions, SignatureOptions
    from deltaimg.options.flatten import FlattenOptions
    from deltaimg.options.keep import Policy
    from deltaimg.options.mirror import MirrorOptions
    from deltaimg.options.parity import ParityOptions
    from deltaimg.options.prune import PruneOptions
    from deltaimg.options.restore import RestoreOptions
    from deltaimg.options.store import StoreOptions
    from deltaimg.options.sync import SyncOptions
    from deltaimg.options.verify import VerifyOptions
    from deltaimg.repo.repository import Repository
    from deltaimg.repo.snapshots import DamagedSnapshot, Snapshot

__version__ = "0.1.0"

_HOMES = {
    "BackupOptions": "deltaimg.options.backup",
    "DamagedSnapshot": "deltaimg.repo.snapshots",
    "DeltaOptions": "deltaimg.options.files",
    "DeltaimgError": "deltaimg.errors",
    "FlattenOptions": "deltaimg.options.flatten",
    "Manifest": "deltaimg.format.manifest",
    "MirrorOptions": "deltaimg.options.mirror",
    "ParityOptions": "deltaimg.options.parity",
    "Passphrase": "deltaimg.api.keys",
    "PatchOptions": "deltaimg.options.files",
    "Policy": "deltaimg.options.keep",
    "Progress": "deltaimg.engine.progress",
    "PruneOptions": "deltaimg.options.prune",
    "Repository": "deltaimg.repo.repository",
    "RestoreOptions": "deltaimg.options.restore",
    "SignatureOptions": "deltaimg.options.files",
    "Snapshot": "deltaimg.repo.snapshots",
    "SnapshotReader": "deltaimg.engine.content.reader",
    "StoreOptions": "deltaimg.options.store",
    "SyncOptions": "deltaimg.options.sync",
    "VerifyOptions": "deltaimg.options.verify",
    "add_parity": "deltaimg.api.repair",
    "backup": "deltaimg.api.backup",
    "backup_group": "deltaimg.api.groups",
    "backup_guest": "deltaimg.api.domains",
    "check": "deltaimg.api.verification",
    "clean_cache": "deltaimg.api.cache",
    "compare": "deltaimg.api.compare",
    "create_repository": "deltaimg.api.repositories",
    "delta_file": "deltaimg.api.files",
    "diff": "deltaimg.api.compare",
    "find_cache_folder": "deltaimg.api.cache",
    "find_guest": "deltaimg.api.domains",
    "flatten": "deltaimg.api.retention",
    "forget": "deltaimg.api.retention",
    "forget_snapshots": "deltaimg.api.retention",
    "list_cache": "deltaimg.api.cache",
    "list_locks": "deltaimg.api.repositories",
    "list_snapshots": "deltaimg.api.repositories",
    "mirror": "deltaimg.api.mirror",
    "mount": "deltaimg.api.mount",
    "open_repository": "deltaimg.api.repositories",
    "open_snapshot": "deltaimg.api.restore",
    "parse_bandwidth": "deltaimg.options.bandwidth",
    "patch_file": "deltaimg.api.files",
    "pin": "deltaimg.api.retention",
    "plan_backup": "deltaimg.api.forecast",
    "plan_prune": "deltaimg.api.retention",
    "plan_sync": "deltaimg.api.sync",
    "prune": "deltaimg.api.retention",
    "read_guest_config": "deltaimg.api.guest_configs",
    "read_key_file": "deltaimg.api.keys",
    "recover_mirror": "deltaimg.api.mirror",
    "remove_lock": "deltaimg.api.repositories",
    "repair": "deltaimg.api.repair",
    "repair_packs": "deltaimg.api.repair",
    "restore": "deltaimg.api.restore",
    "restore_group": "deltaimg.api.restore_many",
    "restore_newest": "deltaimg.api.restore_many",
    "sign_file": "deltaimg.api.files",
    "survey_parity": "deltaimg.api.repair",
    "sync": "deltaimg.api.sync",
    "tag": "deltaimg.api.retention",
    "unpin": "deltaimg.api.retention",
    "verify": "deltaimg.api.verification",
}

__all__ = [
    "BackupOptions",
    "DamagedSnapshot",
    "DeltaOptions",
    "DeltaimgError",
    "FlattenOptions",
    "Manifest",
    "MirrorOptions",
    "ParityOptions",
    "Passphrase",
    "PatchOptions",
    "Policy",
    "Progress",
    "PruneOptions",
    "Repository",
    "RestoreOptions",
    "SignatureOptions",
    "Snapshot",
    "SnapshotReader",
    "StoreOptions",
    "SyncOptions",
    "VerifyOptions",
    "__version__",
    "add_parity",
    "backup",
    "backup_group",
    "backup_guest",
    "check",
    "clean_cache",
    "compare",
    "create_repository",
    "delta_file",
    "diff",
    "find_cache_folder",
    "find_guest",
    "flatten",
    "forget",
    "forget_snapshots",
    "list_cache",
    "list_locks",
    "list_snapshots",
    "mirror",
    "mount",
    "open_repository",
    "open_snapshot",
    "parse_bandwidth",
    "patch_file",
    "pin",
    "plan_backup",
    "plan_prune",
    "plan_sync",
    "prune",
    "read_guest_config",
    "read_key_file",
    "recover_mirror",
    "remove_lock",
    "repair",
    "repair_packs",
    "restore",
    "restore_group",
    "restore_newest",
    "sign_file",
    "survey_parity",
    "sync",
    "tag",
    "unpin",
    "verify",
]


def __dir__() -> list[str]:
    """List the public names, those that were not used yet included."""
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'deltaimg' has no attribute '{name}'")
    from importlib import import_module

    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
