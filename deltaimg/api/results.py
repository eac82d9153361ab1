# SPDX-License-Identifier: Apache-2.0
"""What the functions of the interface take and return, for annotations: one place for those who name the types."""

from __future__ import annotations

from deltaimg.api.restore_many import RestoredGroup as RestoredGroup
from deltaimg.api.restore_many import RestoredImages as RestoredImages
from deltaimg.domains.interface import LeftOut as LeftOut
from deltaimg.engine.backup.cache_folder import CachedImage as CachedImage
from deltaimg.engine.backup.forecast import BackupForecast as BackupForecast
from deltaimg.engine.check.findings import Finding as Finding
from deltaimg.engine.check.report import CheckReport as CheckReport
from deltaimg.engine.content.reader import SnapshotReader as SnapshotReader
from deltaimg.engine.inspect.listing import ListedSnapshot as ListedSnapshot
from deltaimg.engine.inspect.stored_content import StoredContent as StoredContent
from deltaimg.engine.parity.add import ParityAdded as ParityAdded
from deltaimg.engine.parity.protection import ParityProtection as ParityProtection
from deltaimg.engine.prune.deletion import Waiting as Waiting
from deltaimg.engine.prune.plan import PrunePlan as PrunePlan
from deltaimg.engine.prune.run import PruneResult as PruneResult
from deltaimg.engine.repair.run import RepairReport as RepairReport
from deltaimg.engine.restore.run import RestoreResult as RestoreResult
from deltaimg.engine.retention.flatten import FlattenResult as FlattenResult
from deltaimg.engine.retention.forget import Forgotten as Forgotten
from deltaimg.engine.sync.comparison import Compared as Compared
from deltaimg.engine.sync.request import SyncEstimate as SyncEstimate
from deltaimg.engine.sync.request import SyncResult as SyncResult
from deltaimg.engine.sync.selection import Failure as Failure
from deltaimg.format.manifest import Manifest as Manifest
from deltaimg.model import DamagedExtent as DamagedExtent
from deltaimg.model import Extent as Extent
from deltaimg.repo.groups import GroupSnapshot as GroupSnapshot
from deltaimg.repo.lock_holder import FoundLock as FoundLock
from deltaimg.repo.lock_waiting import LockWaiting as LockWaiting
from deltaimg.repo.repository import Repository as Repository
from deltaimg.repo.repository import SnapshotRef as SnapshotRef
from deltaimg.repo.retention import Verdict as Verdict
from deltaimg.repo.snapshots import DamagedSnapshot as DamagedSnapshot
from deltaimg.repo.snapshots import Snapshot as Snapshot
from deltaimg.repo.verified_share import VerifiedSummary as VerifiedSummary
