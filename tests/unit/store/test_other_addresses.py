# SPDX-License-Identifier: Apache-2.0
"""Who writes an address as restic, borg or scp have it is told the one of this program, which opens."""

from __future__ import annotations

import pytest

from deltaimg.errors import UsageError
from deltaimg.store.open import is_store_address, open_store
from deltaimg.store.other_addresses import suggest_address

WRITTEN = {
    "sftp:ann@host:/srv/backup": "sftp://ann@host/srv/backup",
    "sftp:host:backup": "sftp://host/./backup",
    "ann@host:/srv/backup": "sftp://ann@host/srv/backup",
    "host:backup/vm": "sftp://host/./backup/vm",
    "ssh://ann@host:2222/srv/backup": "sftp://ann@host:2222/srv/backup",
    "ssh://host/./backup": "sftp://host/./backup",
    "s3:http://127.0.0.1:9000/bucket/prefix": "s3://bucket/prefix?endpoint=http://127.0.0.1:9000",
    "s3:s3.example.org/bucket": "s3://bucket?endpoint=https://s3.example.org",
    "s3:s3.amazonaws.com/bucket/prefix": "s3://bucket/prefix",
    "s3:https://s3.amazonaws.com/bucket": "s3://bucket",
    "s3:bucket/prefix": "s3://bucket/prefix",
    "gs:bucket:/prefix": "gs://bucket/prefix",
    "azure:container:/prefix": "az://container/prefix",
}


@pytest.mark.parametrize(("written", "meant"), WRITTEN.items())
def test_an_address_of_another_program_is_answered_with_ours(written: str, meant: str) -> None:
    assert suggest_address(written) == meant
    assert is_store_address(meant)
    with pytest.raises(UsageError) as caught:
        open_store(written)
    assert f"write {meant};" in str(caught.value.hint)


@pytest.mark.parametrize(
    "written", ["rest:http://host:8000/", "b2:bucket:x", "rclone:remote:x", "ftp://host/x", "host:"]
)
def test_places_that_no_repository_can_be_are_answered_with_those_that_can(written: str) -> None:
    assert suggest_address(written) is None
    with pytest.raises(UsageError) as caught:
        open_store(written)
    assert "sftp://, s3://" in str(caught.value.hint)
    assert f"'./{written}'" in str(caught.value.hint)
