# SPDX-License-Identifier: Apache-2.0
"""Every error that reaches a user, each with the exit code of the command line.

Always  `str(error)` is one line that names the thing; `hint`, where there is one, says what to do next.
Always  facts are attributes; the message is built from them once, here, and nowhere else.

Sections are by what fails: images (codes from 10), snapshots (20), repositories (30), damage (40), stores (50), frozen images
and keys (60), this host and what commands read and write (70), mirrors (80). A new error takes a free code of its ten or, where
that is full, one of the sixties or eighties. One file, so that a name, a code and its neighbours are found in one place.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deltaimg.model import DamagedExtent

_REPAIR = "'deltaimg check' lists what is damaged, 'deltaimg repair' recovers what can be recovered"
_RECOVER = "'deltaimg repair' recovers what parity, another copy or the image still has"
_MAKE_AGAIN = "the file is damaged or incomplete: copy it or make it again"
_OBJECT = re.compile(
    r"(config|verified)$|[0-9a-f]{32}$|the new |"
    r"(annotations|deletions|index|keys|locks|maps|packs|parity|quarantine|rosters|signatures|snapshots)/"
)
"""How names of objects in a repository begin, or of records; all else is the path of a file."""


class DeltaimgError(Exception):
    """The root of the family; not raised itself."""

    exit_code = 1
    retryable = False
    was_retried = False
    """Whether it was retried for as long as that is worth it."""
    retry_after_s: float | None = None
    """How long a store that refused a request asked to wait, where it did."""
    hint: str | None = None
    located_at: str | None = None
    """The repository that it is about, where a run deals with two; see `locate`."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        if hint is not None:
            self.hint = hint

    def __reduce__(self) -> tuple[Any, ...]:
        """Let errors pass from a worker process as they are: each class takes other arguments than `args` has."""
        return _rebuild_error, (type(self), self.args, self.__dict__)

    def locate(self, location: str) -> None:
        """Begin the message with the repository that it is about, where a run deals with two; the first call counts."""
        if self.located_at is None:
            self.located_at = location
            if location not in str(self):
                self.args = (f"{location}: {self}", *self.args[1:])


def _rebuild_error(kind: type[DeltaimgError], args: tuple[Any, ...], state: dict[str, Any]) -> DeltaimgError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(state)
    return error


class UsageError(DeltaimgError):
    """An option, a name or a combination of them that is not valid."""

    exit_code = 2


# -- images ------------------------------------------------------------------------------------------------------------


class ImageError(DeltaimgError):
    """An image cannot be read or written."""

    exit_code = 10

    def __init__(self, path: str, problem: str, *, hint: str | None = None) -> None:
        super().__init__(f"{path}: {problem}", hint=hint)
        self.path = path


class UnsupportedImage(ImageError):
    """It is not a flat file, block device or stream."""

    exit_code = 11


class SourceChanged(ImageError):
    """The image was written to while it was read, so that what was read is not one moment of it."""

    exit_code = 12
    hint = "run again while nothing writes to it, or with --freeze auto"


class TargetExists(ImageError):
    """A file to be written exists, or a device to be written was not confirmed with --force."""

    exit_code = 13


class TargetTooSmall(ImageError):
    """There is not enough room for the image to be written."""

    exit_code = 14
    hint = "choose a larger device, or a file system with more room"


class SizeMismatch(ImageError):
    """An image has another size than the snapshot it is compared with, or than --size says."""

    exit_code = 15
    hint = "'deltaimg show' has the size of each snapshot"


class WrongOldFile(ImageError):
    """A delta was made for another old file than the one that was given."""

    exit_code = 16
    hint = "give the file that the signature was made of, as it was then"


class ImageInUse(ImageError):
    """Something else uses the image, and may write to it: a mount, swap space, a program that holds it."""

    exit_code = 17
    hint = "unmount or stop what uses it, or freeze it with --freeze auto"


class SourceShrank(ImageError):
    """The image is smaller than it was: a stream that was cut short, or a wrong path."""

    exit_code = 18
    hint = "--allow-shrink stores it, if it was made smaller on purpose"


class SourceUnreadable(ImageError):
    """A snapshot was stored, but parts of the image could not be read, and are zeros in it."""

    exit_code = 19


# -- snapshots ---------------------------------------------------------------------------------------------------------


class SnapshotError(DeltaimgError):
    """A snapshot cannot be found or used."""

    exit_code = 20


class SnapshotNotFound(SnapshotError):
    """No snapshot in the repository matches a selector."""

    exit_code = 21

    def __init__(self, selector: str, *, hint: str | None = None) -> None:
        super().__init__(f"no snapshot matches '{selector}'", hint=hint or "'deltaimg snapshots' lists all")
        self.selector = selector


class AmbiguousSnapshot(SnapshotError):
    """More than one snapshot matches a selector."""

    exit_code = 22

    def __init__(self, selector: str, matches: list[str]) -> None:
        super().__init__(
            f"'{selector}' matches {len(matches)} snapshots: {', '.join(matches[:5])}{', …' if len(matches) > 5 else ''}",
            hint="give more letters of the id",
        )
        self.selector, self.matches = selector, matches


class SnapshotIncomplete(SnapshotError):
    """A map that a snapshot lists is not in the repository, so that the snapshot cannot be restored."""

    exit_code = 23

    def __init__(self, snapshot: str, map_name: str) -> None:
        super().__init__(
            f"snapshot {snapshot} needs {map_name}, which is missing",
            hint=f"'deltaimg repair --from COPY' restores it; 'deltaimg forget {snapshot}' drops the snapshot",
        )
        self.snapshot, self.map_name = snapshot, map_name


class SnapshotPinned(SnapshotError):
    """A snapshot that is to be forgotten is pinned."""

    exit_code = 24

    def __init__(self, snapshot: str, reason: str) -> None:
        why = f" ({reason})" if reason else ""
        super().__init__(f"snapshot {snapshot} is pinned{why}", hint=f"'deltaimg unpin {snapshot}' allows it")
        self.snapshot, self.reason = snapshot, reason


class LastSnapshot(SnapshotError):
    """Forgetting would leave no snapshot of an image."""

    exit_code = 25

    def __init__(self, image: str, count: int) -> None:
        what = "the last snapshot" if count == 1 else f"all {count} snapshots"
        super().__init__(f"that would forget {what} of image '{image}'", hint="--force forgets them nevertheless")
        self.image, self.count = image, count


class DeletionRefused(SnapshotError):
    """`sync --delete` would forget more than it may, or its source is empty or foreign; nothing was copied or forgotten."""

    exit_code = 26

    def __init__(self, location: str, problem: str, *, hint: str) -> None:
        super().__init__(f"{location}: {problem}, so nothing is forgotten", hint=hint)
        self.location, self.problem = location, problem


class GroupIncomplete(SnapshotError):
    """A snapshot of a group lacks members, so that it cannot be restored as a whole."""

    exit_code = 27

    def __init__(self, group: str, missing: Sequence[str], there: Sequence[str]) -> None:
        super().__init__(
            f"group {group} is incomplete: there is no snapshot of {', '.join(missing)} of that moment",
            hint=f"'deltaimg restore {there[0]} TARGET' restores a member by itself; an earlier snapshot may be whole",
        )
        self.group, self.missing, self.there = group, tuple(missing), tuple(there)


class RestoreIncomplete(SnapshotError):
    """Of several images some could not be restored as a whole; all others are."""

    exit_code = 28

    def __init__(self, images: Sequence[tuple[str, str]], *, hint: str | None = None) -> None:
        """Args: images: names of those that were not restored, at least one, each with the reason."""
        (first, problem), *others = images
        more = f", and {len(others)} more image{'s' * (len(others) > 1)}" if others else ""
        super().__init__(f"{first}{more} not restored: {problem}", hint=hint or _REPAIR)
        self.images = tuple(images)


# -- repositories ------------------------------------------------------------------------------------------------------


class RepositoryError(DeltaimgError):
    """The repository as a whole cannot be used."""

    exit_code = 30


class RepositoryNotFound(RepositoryError):
    """There is no repository at the location."""

    exit_code = 31

    def __init__(self, location: str, problem: str | None = None, *, hint: str | None = None) -> None:
        if problem is None:
            creates_one = f"'deltaimg init -r {location}' creates one"
            hint = f"{hint}; if there is none yet, {creates_one}" if hint else creates_one
        super().__init__(f"{location}: {problem or 'there is no repository here'}", hint=hint)
        self.location, self.problem = location, problem


class RepositoryExists(RepositoryError):
    """`init` found something at the location."""

    exit_code = 32

    def __init__(self, location: str, problem: str) -> None:
        super().__init__(f"{location}: {problem}", hint="choose an empty or a new folder")
        self.location = location


class RepositoryLocked(RepositoryError):
    """Another process works on the same image, or reorganises what all images share."""

    exit_code = 33
    retryable = True

    def __init__(self, what: str, owner: str, *, hint: str | None = None) -> None:
        super().__init__(f"{what} is locked by {owner}", hint=hint or "run again when it is done")
        self.what, self.owner = what, owner


class UnsupportedFormat(RepositoryError):
    """An object was written by a newer deltaimg, or uses a feature that this one lacks."""

    exit_code = 34

    def __init__(self, object_name: str, problem: str, *, hint: str = "use a newer version of deltaimg") -> None:
        super().__init__(f"{object_name}: {problem}", hint=hint)
        self.object_name = object_name


class LockLost(RepositoryError):
    """Another process considered this run dead and removed its lock; what it relied on may be deleted by now."""

    exit_code = 35
    retryable = True
    hint = "run again; every snapshot that was committed before is intact"

    def __init__(
        self, what: str, problem: str = "another process considered this run dead and removed its lock"
    ) -> None:
        super().__init__(f"{what}: {problem}")
        self.what = what


class ReachabilityUnknown(RepositoryError):
    """What snapshots need cannot be determined, so that nothing was deleted."""

    exit_code = 36
    hint = _REPAIR

    def __init__(self, problems: list[str]) -> None:
        more = f"; and {len(problems) - 1} more" if len(problems) > 1 else ""
        super().__init__(f"what snapshots need cannot be determined, so nothing is deleted: {problems[0]}{more}")
        self.problems = tuple(problems)


class SnapshotsVanished(RepositoryError):
    """Snapshots that this host has seen are missing, and it has not forgotten them: a prune could delete what they need."""

    exit_code = 37
    hint = (
        "is a disk not mounted, or a folder moved? Once they are forgotten on purpose, 'deltaimg prune --force' deletes "
        "what they needed"
    )

    def __init__(self, location: str, problem: str, *, hint: str | None = None) -> None:
        super().__init__(f"{location}: {problem}, so nothing is deleted", hint=hint)
        self.location = location


class FamilyConflict(RepositoryError):
    """Two repositories have one id, or one family, and different keys: a config of theirs was made up or exchanged."""

    exit_code = 38
    hint = "'deltaimg check' on each says which of them can be read with its config; 'deltaimg init --like' makes a new member"

    def __init__(self, location: str, other: str, shared: str, shared_id: str) -> None:
        """Args: shared: what they have in common, as in `id`. shared_id: its value."""
        super().__init__(f"{location} and {other} have the {shared} {shared_id[:8]} in common, but different keys")
        self.location, self.other = location, other


class SyncIncomplete(RepositoryError):
    """Some snapshots could not be copied by `sync`; the others are in the destination."""

    exit_code = 39

    def __init__(self, location: str, snapshots: list[tuple[str, str]], *, hint: str | None = None) -> None:
        """Args: snapshots: names of those that were not copied, at least one, each with the reason."""
        (first, problem), *others = snapshots
        more = f", and {len(others)} more snapshot{'s' * (len(others) > 1)}" if others else ""
        super().__init__(f"{location}: {first}{more} not copied: {problem}", hint=hint or _REPAIR)
        self.location, self.snapshots = location, tuple(snapshots)


# -- damage ------------------------------------------------------------------------------------------------------------


class IntegrityError(DeltaimgError):
    """An object of the repository, a signature or a delta is damaged."""

    exit_code = 40

    def __init__(
        self, object_name: str, offset: int, problem: str, *, message: str | None = None, hint: str | None = None
    ) -> None:
        """Args: object_name: its name in the repository, or the path of a file. offset: where in it, in bytes.

        message: instead of the one made of these. hint: instead of the one that suits the object.
        """
        hint = hint or self.hint or (_REPAIR if _OBJECT.match(object_name) else _MAKE_AGAIN)
        super().__init__(message or f"{object_name}: {problem} (at byte {offset})", hint=hint)
        self.object_name, self.offset, self.problem = object_name, offset, problem


class Truncated(IntegrityError):
    """An object ends before its content does."""

    exit_code = 41

    def __init__(self, object_name: str, offset: int, needed_bytes: int, found_bytes: int) -> None:
        super().__init__(object_name, offset, f"truncated: {needed_bytes} bytes needed, {found_bytes} found")
        self.needed_bytes, self.found_bytes = needed_bytes, found_bytes


class Malformed(IntegrityError):
    """A field has a value that is not valid."""

    exit_code = 42


class DigestMismatch(IntegrityError):
    """Content does not have the digest that was recorded for it."""

    exit_code = 43

    def __init__(self, object_name: str, offset: int, what: str, expected: bytes, found: bytes) -> None:
        super().__init__(
            object_name, offset, f"{what} is damaged: digest {found.hex()[:16]}, not {expected.hex()[:16]}"
        )
        self.expected, self.found = expected, found


class ContentDamaged(IntegrityError):
    """Content of a snapshot is damaged; lists every extent that cannot be read."""

    exit_code = 44

    def __init__(
        self,
        snapshot: str,
        damage: tuple[DamagedExtent, ...],
        *,
        is_rest_restored: bool = False,
        is_whole: bool = False,
    ) -> None:
        """Args: damage: one extent at least, ascending. is_rest_restored: by `restore --keep-going`.

        is_whole: nothing of the snapshot can be read.
        """
        first = damage[0]
        where = f": bytes {first.start} to {first.end}" if first.end > first.start else ""
        more = f", and {len(damage) - 1} more extent{'s' * (len(damage) > 2)}" if len(damage) > 1 else ""
        is_rest_left = not is_rest_restored and not is_whole
        super().__init__(
            snapshot,
            first.start,
            first.reason,
            message=f"snapshot {snapshot}{where} cannot be read: {first.reason}{more}",
            hint=f"{_RECOVER}; 'deltaimg restore --keep-going' restores the rest" if is_rest_left else _RECOVER,
        )
        self.snapshot, self.damage = snapshot, damage


class ContentDiffers(DeltaimgError):
    """`verify --against` found an image that differs from the snapshot."""

    exit_code = 45
    hint = "'deltaimg verify --against IMAGE --json' lists all extents that differ"


class ParityExhausted(IntegrityError):
    """More of a pack and its neighbours is lost than their parity can recover."""

    exit_code = 46
    hint = "'deltaimg repair --from COPY' takes lost content from another copy of the repository, or from the image"


class PacksDamaged(IntegrityError):
    """Packs are damaged or cannot be read; parity was computed without them."""

    exit_code = 47

    def __init__(self, packs: tuple[str, ...]) -> None:
        more = f", and {len(packs) - 1} more" if len(packs) > 1 else ""
        super().__init__(
            packs[0],
            0,
            "damaged",
            message=f"pack {packs[0]}{more}: damaged or unreadable, and left without new parity; all others are protected",
            hint="'deltaimg parity repair' recovers what it can; then run again",
        )
        self.packs = packs


class RepositoryDamaged(IntegrityError):
    """`check` found errors, or damage remains after a `repair`."""

    exit_code = 48

    def __init__(self, location: str, problem: str, *, hint: str) -> None:
        super().__init__(location, 0, problem, message=f"{location}: {problem}", hint=hint)


class ObjectTooLarge(IntegrityError):
    """An object has more bytes than any object of its kind. None of it was read."""

    exit_code = 49

    def __init__(self, object_name: str, size_bytes: int, max_bytes: int) -> None:
        super().__init__(object_name, 0, f"has {size_bytes} bytes; an object of its kind has at most {max_bytes}")
        self.size_bytes, self.max_bytes = size_bytes, max_bytes


# -- stores ------------------------------------------------------------------------------------------------------------


class StoreError(DeltaimgError):
    """The store refuses or fails."""

    exit_code = 50

    def __init__(self, object_name: str, problem: str, *, hint: str | None = None) -> None:
        super().__init__(f"{object_name}: {problem}", hint=hint)
        self.object_name = object_name


class ObjectNotFound(StoreError):
    """An object is missing that something refers to."""

    exit_code = 51
    hint = _REPAIR

    def __init__(self, object_name: str, problem: str = "is missing from the repository") -> None:
        super().__init__(object_name, problem)


class ObjectExists(StoreError):
    """An object of this name exists already, and objects are never overwritten."""

    exit_code = 52
    hint = "run again"

    def __init__(self, object_name: str) -> None:
        super().__init__(object_name, "exists already")


class StoreFull(StoreError):
    """No space is left, or a quota is reached."""

    exit_code = 53
    hint = "free space and run again; every committed snapshot is intact, and what was stored already is reused"


class StoreUnavailable(StoreError):
    """The store failed, and may not fail the next time."""

    exit_code = 54
    hint = "look whether the disk or share is mounted and healthy (dmesg), then run again"
    retryable = True


class PermissionDenied(StoreError):
    """The store refuses this user."""

    exit_code = 55


class NameNotKept(StoreError):
    """The store cannot keep an object of this name, or cannot keep it apart from one of another name."""

    exit_code = 56
    hint = "choose another name: file systems agree on lower-case letters, digits and dashes"


class NotAnObject(ObjectNotFound):
    """Something else lies where an object of the repository belongs: a folder, a link, a device."""

    exit_code = 57
    hint = "move it elsewhere; 'deltaimg repair' recovers what can be recovered"

    def __init__(self, object_name: str, what: str) -> None:
        super().__init__(object_name, f"is {what}, where an object of the repository belongs")


class HostNotVerified(StoreError):
    """The store's host is not known to be the right one: its certificate or host key was refused."""

    exit_code = 58


class PlaceNotFound(StoreError):
    """The bucket, container or folder that the location names does not exist."""

    exit_code = 59


# -- frozen and tracked images -----------------------------------------------------------------------------------------


class FreezeFailed(ImageError):
    """The image cannot be frozen in the way that was asked for; no snapshot was made."""

    exit_code = 60
    hint = "--freeze auto takes the best way that works here"

    def __init__(self, path: str, problem: str, *, hint: str | None = None) -> None:
        super().__init__(path, problem, hint=hint)
        self.problem = problem


class ProgramMissing(FreezeFailed):
    """A program that freezes or compares images is not installed; no snapshot was made."""

    exit_code = 88


class FreezeLost(ImageError):
    """What was read is no point in time any more: a snapshot overflowed, or was removed. Nothing was committed."""

    exit_code = 61
    hint = "where one of LVM overflowed: give --snapshot-size more than what is written to the volume meanwhile"


class HookFailed(DeltaimgError):
    """A command of --pre-freeze or --post-freeze failed, or took longer than it may; no snapshot was made."""

    exit_code = 62
    hint = "see what the command said; writers may still be stopped if --post-freeze failed"

    def __init__(self, option: str, problem: str) -> None:
        super().__init__(f"{option}: the command {problem}, so no snapshot was made")
        self.option, self.problem = option, problem


class BadHints(ImageError):
    """A file of --hints cannot be read, or is no list of extents. Nothing was changed."""

    exit_code = 68
    hint = "docs/sources.md shows what such a file looks like; without --hints everything is read"


# -- keys and seals ----------------------------------------------------------------------------------------------------


class KeyNeeded(RepositoryError):
    """The repository is encrypted, and no passphrase and no key file was given."""

    exit_code = 63

    def __init__(self, location: str) -> None:
        super().__init__(
            f"{location}: the repository is encrypted, and no key was given",
            hint="give --key-file, --passphrase-file or --passphrase-command, or set DELTAIMG_KEY_FILE or DELTAIMG_PASSPHRASE; "
            "of a recovery text on paper 'deltaimg key import' makes a key",
        )
        self.location = location


class WrongKey(RepositoryError):
    """The passphrase or the key file that was given opens none of the repository's key slots."""

    exit_code = 64

    def __init__(self, location: str, what: str, *, hint: str | None = None) -> None:
        """Args: what: what was given, as in `the passphrase`."""
        super().__init__(f"{location}: {what} opens none of its keys", hint=hint or "'deltaimg key list' shows them")
        self.location = location


class EncryptionMissing(RepositoryError):
    """The repository is not encrypted, where one that is was expected: its `config` may have been exchanged."""

    exit_code = 65

    def __init__(self, location: str, reason: str, *, hint: str | None = None) -> None:
        """Args: reason: why it should be encrypted."""
        super().__init__(f"{location}: the repository is not encrypted, and {reason}", hint=hint)
        self.location = location


class LastKey(RepositoryError):
    """The only key slot of a repository is not removed: without one nothing in it could ever be read again."""

    exit_code = 66
    hint = "add another with 'deltaimg key add' first"

    def __init__(self, location: str) -> None:
        super().__init__(f"{location}: this is its only key")
        self.location = location


class SealBroken(IntegrityError):
    """What is sealed was changed, moved or made by someone without the key; or what should be sealed is not."""

    exit_code = 67


class OnlyWrites(RepositoryError):
    """The key of a write-only host was given for something that reads what is stored."""

    exit_code = 69

    def __init__(self, what: str) -> None:
        """Args: what: the repository or the object that it does not open."""
        super().__init__(
            f"{what}: the key that was given only writes: backups can be made with it, and nothing else",
            hint="do this where there is a passphrase or a key file of the repository that reads",
        )


class PaddingMissing(RepositoryError):
    """An object is padded, and `config` says that this repository is not: it may have been exchanged."""

    exit_code = 86
    hint = (
        "whoever changed 'config' would see the sizes of your backups: put it aside, and take it from another copy of the "
        "repository with 'deltaimg repair --from COPY'"
    )

    def __init__(self, object_name: str) -> None:
        super().__init__(f"{object_name}: is padded, and 'config' says that nothing in this repository is")
        self.object_name = object_name


# -- what this host lacks, and defects ---------------------------------------------------------------------------------


class NativeError(DeltaimgError):
    """The native core refused its arguments, which only a defect in deltaimg can cause."""

    exit_code = 70

    def __init__(self, function: str, status: str) -> None:
        super().__init__(f"{function}: {status}", hint="this is a defect in deltaimg; please report it")
        self.function, self.status = function, status


class XdeltaUnusable(DeltaimgError):
    """xdelta3 is not installed, or does not work here."""

    exit_code = 71


class ParityUnusable(DeltaimgError):
    """The library that computes parity is not installed, or does not work here."""

    exit_code = 72


class StoreUnusable(DeltaimgError):
    """What a kind of store needs is not installed, or does not work here."""

    exit_code = 78

    def __init__(self, scheme: str, package: str, extra: str, *, problem: str = "is not installed") -> None:
        super().__init__(
            f"{scheme}:// needs {package}, which {problem}", hint=describe_installation(f"deltaimg[{extra}]")
        )
        self.scheme, self.package, self.extra = scheme, package, extra


_SHORTAGES = {
    "memory": (
        "there is not enough memory",
        "raise the limit (ulimit -v, MemoryMax= of a service), or run where there is more memory",
    ),
    "threads": (
        "no more threads or processes can be started",
        "raise the limit (ulimit -u, TasksMax= of a service, pids.max of a container)",
    ),
    "open files": ("too many files are open", "raise the limit (ulimit -n, LimitNOFILE= of a service)"),
    "file size": ("a file would be larger than is allowed", "raise the limit (ulimit -f, LimitFSIZE= of a service)"),
}


class OutOfResources(DeltaimgError):
    """The system grants less than is needed of memory, threads, open files or the size of a file."""

    exit_code = 73

    def __init__(self, what: str, task: str | None = None, *, advice: str | None = None) -> None:
        """Args: what: a key of `_SHORTAGES`. task: what was being done. advice: what else helps, to be tried first."""
        problem, hint = _SHORTAGES[what]
        super().__init__(f"{task}: {problem}" if task else problem, hint=f"{advice}; or {hint}" if advice else hint)
        self.what, self.task = what, task


class MemoryLimitReached(DeltaimgError):
    """What an object says would take more memory than there may be for it. Whether the object is damaged is not known."""

    exit_code = 75
    hint = "run where there is more memory, or set DELTAIMG_METADATA_MEMORY to what there may be, such as 4G"

    def __init__(self, object_name: str, needed_bytes: int, limit_bytes: int) -> None:
        super().__init__(
            f"{object_name}: what it says takes {needed_bytes >> 20} MiB of memory; the limit is {limit_bytes >> 20} MiB"
        )
        self.object_name, self.needed_bytes, self.limit_bytes = object_name, needed_bytes, limit_bytes


class CacheError(DeltaimgError):
    """The cache of this host cannot be changed."""

    exit_code = 76

    def __init__(self, folder: str, problem: str) -> None:
        super().__init__(f"{folder}: the cache cannot be changed: {problem}", hint="check owner and mode of the folder")
        self.folder = folder


class ClusterFailed(DeltaimgError):
    """The cluster that jobs were to run on cannot be reached, lacks what they need, or failed."""

    exit_code = 79

    def __init__(self, address: str, problem: str, *, hint: str | None = None) -> None:
        super().__init__(f"{address}: {problem}", hint=hint)
        self.address, self.problem = address, problem


class GuestUnusable(DeltaimgError):
    """A guest is not known here, its configuration cannot be read, or one of its disks cannot be backed up from this host."""

    exit_code = 87

    def __init__(self, guest: str, problem: str, *, hint: str | None = None) -> None:
        super().__init__(f"{guest}: {problem}", hint=hint)
        self.guest, self.problem = guest, problem


# -- mirrors -----------------------------------------------------------------------------------------------------------


class MirrorError(DeltaimgError):
    """A mirror failed; the copy is as it was, or the next run or `mirror --recover` makes it so."""

    exit_code = 80


class FarSideUnusable(MirrorError):
    """The host with the copy cannot be reached, or deltaimg does not answer there."""

    exit_code = 81


class MirrorBusy(MirrorError):
    """Another process writes to the copy."""

    exit_code = 82
    retryable = True
    hint = "run again when it is done"


class MirrorProtocolError(MirrorError):
    """The other side of a mirror sent what it should not."""

    exit_code = 83

    def __init__(self, problem: str, *, hint: str | None = None) -> None:
        super().__init__(
            f"the other side of the mirror: {problem}", hint=hint or "use the same version of deltaimg on both hosts"
        )
        self.problem = problem


class MirrorDiffers(MirrorError):
    """The copy does not hold what it should; the next run reads it and repairs it."""

    exit_code = 84
    hint = "run again: all of the copy is read then, and what differs is sent"


class FarSideError(MirrorError):
    """The host with the copy reported an error; the exit code is that error's, or this one if it is not known here."""

    exit_code = 85


# -- commands, their input and output ----------------------------------------------------------------------------------


class CommandFailed(DeltaimgError):
    """The command whose output was to be backed up failed; no snapshot was made."""

    exit_code = 77
    hint = "see what the command said, and run again"

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(f"{name}: {problem}")
        self.name, self.problem = name, problem


class OutputError(DeltaimgError):
    """The standard output cannot be written: its disk is full, it is closed, or its terminal was closed."""

    exit_code = 74

    def __init__(self, problem: str, *, hint: str | None = None) -> None:
        super().__init__(f"standard output: cannot be written: {problem}", hint=hint)


class ReaderGone(DeltaimgError):
    """The reader of the standard output closed it, as `head` does: 128 + SIGPIPE, and no message."""

    exit_code = 141

    def __init__(self) -> None:
        super().__init__("standard output: its reader has closed it")


class Interrupted(BaseException):
    """A signal asked the run to stop; the exit code is 128 + the signal's number."""

    # Not of the family: it is raised anywhere, and code that expects damage or a failing store there must not take it for that.
    exit_code = 130
    retryable = False
    hint: str | None = None

    def __init__(self, signal_number: int, outcome: str = "every committed snapshot is intact") -> None:
        """Args: outcome: what the run leaves behind."""
        super().__init__(f"interrupted; {outcome}")
        self.signal_number, self.outcome = signal_number, outcome
        self.exit_code = 128 + signal_number


def describe_installation(requirement: str, *, is_broken: bool = False) -> str:
    """Return the command that installs a package, or a broken one again, where this program runs."""
    return f"{sys.executable} -m pip install {'--force-reinstall ' * is_broken}'{requirement}'"


def error_classes(root: type[DeltaimgError] = DeltaimgError) -> Iterator[type[DeltaimgError]]:
    """Yield the whole family, parents before children, in the order of this file. The exit-code table is made of it."""
    yield root
    for child in root.__subclasses__():
        yield from error_classes(child)
