# SPDX-License-Identifier: Apache-2.0
"""The error family: what a user reads, and what a script sees."""

from __future__ import annotations

import inspect
import pickle
import sys
from contextlib import suppress

import pytest

from deltaimg import errors
from deltaimg.errors import DeltaimgError, IntegrityError, error_classes
from deltaimg.model import DamagedExtent
from deltaimg.repo import object_kinds
from deltaimg.repo.object_kinds import ObjectKind

GONE = DamagedExtent(0, 4096, "gone")
EXAMPLES: list[DeltaimgError] = [
    errors.UsageError("--jobs is 0", hint="give a positive number"),
    errors.ImageError("/dev/sda", "cannot be read"),
    errors.SnapshotNotFound("vm1@latest"),
    errors.AmbiguousSnapshot("3f", [f"vm1@3f{n}" for n in range(9)]),
    errors.SnapshotIncomplete("vm1@3f9c", "maps/00aa"),
    errors.RepositoryNotFound("/backup"),
    errors.RepositoryExists("/backup", "there is a repository already"),
    errors.RepositoryLocked("image 'vm1'", "process 1 of root"),
    errors.UnsupportedFormat("maps/ab", "has format version 2"),
    errors.Truncated("maps/ab", 64, 100, 80),
    errors.Malformed("maps/ab", 64, "its counts are absurd"),
    errors.DigestMismatch("packs/ab", 4096, "the record here", b"\1" * 16, b"\2" * 16),
    errors.ContentDamaged("vm1@3f9c", (GONE, GONE)),
    errors.ParityExhausted("packs/ab", 0, "4 shards of one stripe are lost"),
    errors.PacksDamaged(("ab", "cd")),
    errors.ObjectTooLarge("maps/ab", 5_000_000_000, 1_048_640),
    errors.ObjectNotFound("maps/ab"),
    errors.NotAnObject("maps/ab", "a named pipe"),
    errors.ObjectExists("maps/ab"),
    errors.StoreFull("maps/ab", "no space left"),
    errors.NameNotKept("locks/VM1", "the file system of /backup takes this name for 'vm1'"),
    errors.HostNotVerified("backup.example", "its host key is unknown", hint="compare the fingerprint"),
    errors.PermissionDenied("backup.example", "does not accept user ann", hint="add a key"),
    errors.StoreUnusable("sftp", "asyncssh", "sftp"),
    errors.NativeError("scan_blocks", "BAD_SLOT"),
    errors.OutOfResources("memory", "backing up", advice="run with --threads 1"),
    errors.CacheError("/home/ann/.cache/deltaimg", "Permission denied"),
    errors.CommandFailed("command 'ssh'", "ended with exit status 255"),
    errors.OutputError("No space left on device"),
    errors.ReaderGone(),
    errors.Interrupted(2),
]


def named(error: DeltaimgError) -> str:
    return type(error).__name__


def test_every_error_of_the_module_is_of_the_family_and_listed_once():
    own = [value for _, value in inspect.getmembers(errors, inspect.isclass) if value.__module__ == errors.__name__]
    listed = [each for each in error_classes() if each.__module__ == errors.__name__]
    assert sorted(own, key=repr) == sorted([*listed, errors.Interrupted], key=repr)


def test_parents_are_listed_before_their_children():
    listed = list(error_classes())
    for place, each in enumerate(listed[1:], start=1):
        assert each.__base__ in listed[:place]


def test_exit_codes_are_of_one_byte_and_each_stands_for_one_error():
    codes = [each.exit_code for each in (*error_classes(), errors.Interrupted) if each.__module__ == errors.__name__]
    assert len(set(codes)) == len(codes)
    assert all(1 <= code <= 141 for code in codes)


def test_children_have_codes_in_the_ten_of_their_parent():
    for each in error_classes():
        if each.__module__ == errors.__name__ and len(each.__mro__) > 4 and each.__base__ is not DeltaimgError:
            # The sixties and eighties take what a ten has no room for: ten errors of images have codes.
            assert each.exit_code // 10 in (each.__base__.exit_code // 10, 6, 8)


@pytest.mark.parametrize("error", EXAMPLES, ids=named)
def test_a_message_is_one_line_that_says_something(error):
    assert str(error)
    assert "\n" not in str(error)
    assert not str(error).endswith(".")


@pytest.mark.parametrize("error", EXAMPLES, ids=named)
def test_every_error_says_what_it_is_for(error):
    assert type(error).__doc__


@pytest.mark.parametrize("error", [each for each in EXAMPLES if isinstance(each, errors.IntegrityError)], ids=named)
def test_damage_is_always_placed(error):
    assert error.object_name in str(error)
    assert isinstance(error.offset, int)


@pytest.mark.parametrize(
    ("error", "parts"),
    [
        (errors.Truncated("maps/ab", 64, 100, 80), ["maps/ab", "100 bytes needed", "80 found", "at byte 64"]),
        (errors.DigestMismatch("packs/ab", 9, "it", b"\1" * 16, b"\2" * 16), ["0101010101010101", "0202020202020202"]),
        (errors.SnapshotIncomplete("vm1@3f9c", "maps/00aa"), ["vm1@3f9c", "maps/00aa"]),
        (
            errors.ContentDamaged("vm1@3f", (DamagedExtent(0, 4096, "gone"),) * 3),
            ["bytes 0 to 4096", "gone", "and 2 more extents"],
        ),
        (errors.RepositoryLocked("image 'vm1'", "process 1"), ["image 'vm1'", "process 1"]),
    ],
    ids=lambda each: named(each) if isinstance(each, DeltaimgError) else "",
)
def test_a_message_is_built_from_the_facts(error, parts):
    for part in parts:
        assert part in str(error)


def test_a_long_list_of_matches_is_cut():
    message = str(EXAMPLES[3])
    assert "matches 9 snapshots" in message
    assert message.endswith("…")


def test_only_what_may_pass_by_itself_is_worth_another_try():
    assert {each.__name__ for each in error_classes() if each.retryable} == {
        "LockLost",
        "MirrorBusy",
        "RepositoryLocked",
        "StoreUnavailable",
    }


def test_a_hint_given_wins_over_that_of_the_class():
    assert errors.StoreFull("x", "full").hint
    assert errors.StoreFull("x", "full", hint="buy disks").hint == "buy disks"
    assert errors.StoreError("x", "fails").hint is None


@pytest.mark.parametrize(("signal_number", "code"), [(2, 130), (15, 143)])
def test_an_interruption_ends_like_the_signal(signal_number, code):
    assert errors.Interrupted(signal_number).exit_code == code


def test_an_interruption_is_never_taken_for_an_error():
    """Code that expected damage caught it, and the run went on: a repair did not keep what it replaced."""
    with pytest.raises(errors.Interrupted), suppress(DeltaimgError, Exception):
        raise errors.Interrupted(15)


def test_a_plain_error_survives_a_trip_between_processes():
    error = pickle.loads(pickle.dumps(errors.UsageError("no")))
    assert (type(error), str(error)) == (errors.UsageError, "no")


REPAIRABLE = (
    "packs/ab/abcd",
    "maps/aa",
    "snapshots/vm1/20261123T020304.000006Z-0123456789abcdef",
    "config",
    "the new index",
    "0f" * 16,
)
FILES = ("/srv/old.sig", "standard input", "images/disk", "packs.delta", "config.sig")


def test_damage_names_the_way_out_that_fits_what_is_damaged():
    for name in REPAIRABLE:
        for error in (errors.Truncated(name, 0, 2, 1), errors.Malformed(name, 0, "odd")):
            assert "deltaimg repair" in error.hint, name
    for name in FILES:
        assert "copy it or make it again" in errors.Malformed(name, 0, "odd").hint, name


@pytest.mark.parametrize(
    "kind", [each for each in vars(object_kinds).values() if isinstance(each, ObjectKind)], ids=repr
)
def test_damage_of_whatever_a_repository_keeps_leads_to_a_repair(kind):
    if kind.magic is not None:  # else it is something of no value, as `reserve`
        assert (
            "deltaimg repair"
            in errors.Malformed(f"{kind.folder}vm1" if "/" in kind.folder else kind.folder, 0, "odd").hint
        )


def test_a_restore_that_kept_going_is_not_told_to_keep_going():
    damage = (GONE,)
    assert "--keep-going" in errors.ContentDamaged("vm1@3f9c", damage).hint
    assert "--keep-going" not in errors.ContentDamaged("vm1@3f9c", damage, is_rest_restored=True).hint


def test_every_error_but_those_of_usage_and_paths_says_what_to_do_next():
    speaks_for_itself = (
        errors.UsageError,
        errors.ImageError,
        errors.OutputError,
        errors.ReaderGone,
        errors.Interrupted,
    )
    for each in EXAMPLES:
        assert each.hint or type(each) in speaks_for_itself, named(each)


def test_packages_are_installed_where_this_program_runs():
    command = errors.describe_installation("pyeclib>=1.8", is_broken=True)
    assert command == f"{sys.executable} -m pip install --force-reinstall 'pyeclib>=1.8'"


def test_an_integrity_error_names_the_object_and_where_in_it() -> None:
    for error in EXAMPLES:
        if isinstance(error, IntegrityError):
            assert error.object_name in str(error)
            assert error.offset >= 0
            assert error.problem
            assert error.hint
