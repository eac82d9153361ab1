# SPDX-License-Identifier: Apache-2.0
"""Config, lock and manifest: what JSON is taken, and what names and times."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import msgspec
import pytest

from deltaimg.errors import Malformed
from deltaimg.format.config import build_config, parse_config
from deltaimg.format.framing import Kind
from deltaimg.format.limits import MAX_DOCUMENT_BYTES
from deltaimg.format.manifest import build_manifest, find_name_problem, format_time, parse_manifest, split_object_name
from tests.golden import forge
from tests.golden.samples import CONFIG, FULL


def config_with(**changes: object) -> bytes:
    document = msgspec.to_builtins(CONFIG) | changes
    return forge.forge_object(Kind.CONFIG, json.dumps(document).encode())


def manifest_with(**changes: object) -> tuple[bytes, str]:
    """Return a manifest and the name that it belongs to."""
    manifest = msgspec.structs.replace(FULL, **changes)
    return build_manifest(manifest), manifest.object_name


def test_fields_of_a_later_version_are_ignored():
    assert parse_config(config_with(colour="blue", nested={"a": [1]})) == CONFIG


def test_a_document_of_the_largest_size_is_read_and_a_larger_one_is_not():
    body = forge.body_of(build_config(CONFIG))
    largest = body + b" " * (MAX_DOCUMENT_BYTES - len(body))
    assert parse_config(forge.forge_object(Kind.CONFIG, largest)) == CONFIG
    with pytest.raises(Malformed, match="the limit is 1048576"):
        parse_config(forge.forge_object(Kind.CONFIG, largest + b" "))


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 500_000,
        b'{"a":' * 200_000,
        b'"\\ud800"',
        b"\xef\xbb\xbf{}",
        b"",
        b"NaN",
        b'{"created": ' + b"9" * 9999 + b"}",
    ],
    ids=["lists", "objects", "surrogate", "byte-order-mark", "nothing", "nan", "long-number"],
)
def test_json_made_to_break_a_parser_is_refused(body):
    with pytest.raises(Malformed, match="not a config"):
        parse_config(forge.forge_object(Kind.CONFIG, body))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("repository_id", "0" * 32 + "\n"),
        ("digest_key", "0" * 64 + "\n"),
        ("digest_key", "\uff10" * 64),
        ("digest_key", "0" * 63),
    ],
)
def test_hexadecimal_text_is_taken_only_as_it_is_written(field, value):
    """A pattern ending in `$` let a newline through: an id that named another object than it said."""
    with pytest.raises(Malformed, match=field):
        parse_config(config_with(**{field: value}))


@pytest.mark.parametrize(
    "time",
    [
        "20261323T020304.000005Z",
        "20260230T020304.000005Z",
        "20261123T240304.000005Z",
        "00010101T000000.000000Z",
        "99991231T235959.999999Z",
        "\u0662\u0660261123T020304.000005Z",
        "20261123T020304.000005Z\n",
        "20261123T020304Z",
        "",
    ],
)
def test_a_time_that_is_none_is_refused(time):
    """Such a manifest was listed and read, and then ended the next backup with a traceback."""
    with pytest.raises(Malformed, match="its time is not a time" if time.isprintable() else "not printable"):
        parse_manifest(*manifest_with(time=time))


@pytest.mark.parametrize("time", ["19700101T000000.000000Z", "20240229T235959.999999Z", "99981231T235959.999999Z"])
def test_a_time_that_is_one_is_taken(time):
    manifest = parse_manifest(*manifest_with(time=time))
    assert format_time(manifest.taken_at) == time


def test_times_are_written_in_utc_and_sort_as_text():
    berlin = datetime(2026, 11, 23, 3, 3, 4, 5, tzinfo=timezone(timedelta(hours=1)))
    assert format_time(berlin) == "20261123T020304.000005Z"
    moments = [datetime(2026, 1, 1, tzinfo=UTC) + timedelta(microseconds=10**n) for n in range(15)]
    assert sorted(map(format_time, moments)) == [format_time(moment) for moment in moments]


@pytest.mark.parametrize("block_bytes", [2**shift for shift in range(12, 21)])
def test_every_block_size_of_the_format_is_taken(block_bytes):
    assert parse_manifest(*manifest_with(block_bytes=block_bytes)).block_bytes == block_bytes


@pytest.mark.parametrize("block_bytes", [0, -4096, 1, 2048, 4097, 2**20 + 4096, 2**21, 2**64])
def test_any_other_block_size_is_refused(block_bytes):
    with pytest.raises(Malformed, match="its block size is"):
        parse_manifest(*manifest_with(block_bytes=block_bytes))


@pytest.mark.parametrize(
    "name", ["vm1", "vm 1", "web.example-1_a", "Prüfstand", "夜", "a" * 200, "ü" * 100, "{}", "it's"]
)
def test_what_may_name_an_image(name):
    assert find_name_problem(name) is None


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("", "is empty"),
        ("a" * 201, "longer than 200 bytes"),
        ("ü" * 101, "longer than 200 bytes"),
        ("\ud800", "not valid UTF-8"),
        ("a\nb", "control characters"),
        ("a\u202eb", "control characters"),
        ("..", "begins with a dot"),
        (".hidden", "begins with a dot"),
        ("-rf", "begins with a dot, a dash"),
        (" a", "begins with"),
        ("a ", "ends with a space"),
        ("a/b", "has /"),
        ("a\\b@c", "has @ \\"),
    ],
)
def test_what_may_not_name_an_image_and_why(name, problem):
    assert problem in find_name_problem(name)


def test_the_name_of_a_manifest_is_split_as_it_was_joined():
    assert split_object_name(FULL.object_name) == (FULL.image, FULL.time, FULL.id)


@pytest.mark.parametrize("ending", ["\n", "0", "/x", ".tmp"])
def test_a_name_that_only_begins_like_a_manifest_is_none(ending):
    assert split_object_name(FULL.object_name + ending) is None
