# SPDX-License-Identifier: Apache-2.0
"""Addresses of SFTP servers: what they mean, and which are refused."""

from __future__ import annotations

import pytest

from deltaimg.errors import UsageError
from deltaimg.store.sftp.address import parse_sftp_address


@pytest.mark.parametrize(
    ("location", "host", "user", "port", "path"),
    [
        ("sftp://host/srv/backup", "host", None, None, b"/srv/backup"),
        ("sftp://ann@Host.example:2222/srv//backup/", "Host.example", "ann", 2222, b"/srv/backup"),
        ("SFTP://host/", "host", None, None, b"/"),
        ("sftp://host/./backup", "host", None, None, b"backup"),
        ("sftp://host/~/vm/backup", "host", None, None, b"vm/backup"),
        ("sftp://host/~/", "host", None, None, b"."),
        ("sftp://a%40b@[2001:db8::7]:22/my%20repo%ff", "2001:db8::7", "a@b", 22, b"/my repo\xff"),
        ("sftp://host@host/x", "host", "host", None, b"/x"),
    ],
)
def test_an_address_names_a_folder_of_a_server(
    location: str, host: str, user: str | None, port: int | None, path: bytes
) -> None:
    found = parse_sftp_address(location)
    assert (found.host, found.user, found.port, found.path, found.location) == (host, user, port, path, location)


@pytest.mark.parametrize(
    "location",
    [
        "sftp://",
        "sftp:///srv/backup",
        "sftp://host",
        "sftp://@host/x",
        "sftp://host:0/x",
        "sftp://host:port/x",
        "sftp://host:99999/x",
        "sftp://-oProxyCommand=x/y",
        "sftp://host/a/../b",
        "sftp://host/a%00b",
        "sftp://host/a?b",
        "sftp://host/a#b",
        "sftp://[::1/x",
        "sftp://ann%0a@host/x",
    ],
)
def test_another_one_is_refused_with_the_right_form(location: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_sftp_address(location)
    assert caught.value.hint


def test_a_password_in_an_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(UsageError) as caught:
        parse_sftp_address("sftp://ann:s3cret@host/srv")
    assert "s3cret" not in f"{caught.value} {caught.value.hint}"
    assert "sftp://ann@host/srv" in str(caught.value)
    with pytest.raises(UsageError) as caught:
        parse_sftp_address("sftp://ann:s3cret@[host/srv")
    assert "s3cret" not in f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize(
    ("location", "place"),
    [("sftp://h/x", "h"), ("sftp://ann@h:7/x", "ann@h:7"), ("sftp://[::1]:7/x", "[::1]:7")],
)
def test_messages_name_the_place(location: str, place: str) -> None:
    assert parse_sftp_address(location).place == place
