# SPDX-License-Identifier: Apache-2.0
"""A repository in a bucket that keeps every version under lock: all works, and what a stolen key deletes comes back."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.images import edit_at_random, make_mixed_image
from tests.support.program import fail, succeed
from tests.support.s3_servers import S3Server


@pytest.fixture
def locked_bucket(s3_server: S3Server) -> str:
    """A bucket whose versions cannot be deleted for a day, by nobody."""
    bucket = s3_server.make_bucket(ObjectLockEnabledForBucket=True)
    s3_server.client().put_object_lock_configuration(
        Bucket=bucket,
        ObjectLockConfiguration={
            "ObjectLockEnabled": "Enabled",
            "Rule": {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 1}},
        },
    )
    return bucket


def list_versions(client: Any, bucket: str, kind: str = "Versions") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for page in client.get_paginator("list_object_versions").paginate(Bucket=bucket):
        found += page.get(kind, [])
    return found


def test_all_works_under_lock_and_what_was_deleted_comes_back(
    s3_server: S3Server, locked_bucket: str, tmp_path: Path
) -> None:
    repo, client = s3_server.location(locked_bucket, "vm"), s3_server.client()
    image, path = make_mixed_image(2_000_001, seed=8), tmp_path / "vm1.raw"
    succeed("init", "-r", repo)
    for _ in range(3):
        image.save(path)
        succeed("backup", path, "--image", "vm1", "-r", repo)
        content = bytes(image.content)
        edit_at_random(image, 5)
        image.write_random(900_000, 100_000)
        path.unlink()
    succeed("tag", "add", "vm1", "weekly", "-r", repo)
    succeed("check", "--read-packs", "-r", repo)
    succeed("forget", "vm1", "--keep-last", 1, "-r", repo)
    pruned = succeed("prune", "--max-unused", "0%", "-r", repo)
    succeed("check", "--read-packs", "-r", repo)
    succeed("restore", "vm1", tmp_path / "restored", "-r", repo)
    assert (tmp_path / "restored").read_bytes() == content
    # Nothing is written twice but heartbeats, locks, what says when packs were verified, and what a store is tried with.
    keys = [each["Key"] for each in list_versions(client, locked_bucket)]
    twice = {key for key in keys if keys.count(key) > 1}
    allowed = re.compile(r".*(/locks/.*|/probes/.*|/verified)")
    assert not {key for key in twice if not allowed.fullmatch(key)}, pruned.text

    # Whoever has the key may delete what is listed. The versions stay, and are listed again once the markers are gone.
    kept = [each["Key"] for each in client.list_objects_v2(Bucket=locked_bucket)["Contents"]]
    for key in kept:
        client.delete_object(Bucket=locked_bucket, Key=key)
    newest = {each["Key"]: each["VersionId"] for each in list_versions(client, locked_bucket) if each["Key"] in kept}
    with pytest.raises(client.exceptions.ClientError):
        client.delete_object(Bucket=locked_bucket, Key=kept[0], VersionId=newest[kept[0]])
    for marker in list_versions(client, locked_bucket, "DeleteMarkers"):
        if marker["Key"] in kept and marker["IsLatest"]:
            client.delete_object(Bucket=locked_bucket, Key=marker["Key"], VersionId=marker["VersionId"])
    succeed("check", "--read-packs", "-r", repo)
    (tmp_path / "restored").unlink()
    succeed("restore", "vm1", tmp_path / "restored", "-r", repo)
    assert (tmp_path / "restored").read_bytes() == content


def forbid_deletion(s3_server: S3Server, bucket: str) -> None:
    """Give a bucket the policy of docs/offsite.md: locks and probes may be deleted, and nothing else."""
    allowed = [f"arn:aws:s3:::{bucket}/vm/{folder}/*" for folder in ("locks", "probes")]
    statement = {"Effect": "Deny", "Principal": "*", "Action": "s3:DeleteObject", "NotResource": allowed}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    s3_server.client().put_bucket_policy(Bucket=bucket, Policy=policy)


def test_a_key_that_may_not_delete_backs_up_and_removes_nothing(s3_server: S3Server, tmp_path: Path) -> None:
    """What it cannot delete stays pending, in a repository that is whole, until one that may delete prunes."""
    bucket = s3_server.make_bucket()
    repo, client = s3_server.location(bucket, "vm"), s3_server.client()
    forbid_deletion(s3_server, bucket)
    path = tmp_path / "vm1.raw"
    succeed("init", "-r", repo)
    for seed in (9, 10):
        make_mixed_image(1_000_001, seed=seed).save(path)
        succeed("backup", path, "--image", "vm1", "-r", repo)
        path.unlink()
    assert "the server refuses access to snapshots/vm1/" in fail(55, "forget", "vm1", "--keep-last", 1, "-r", repo)
    assert len(succeed("snapshots", "-r", repo, "--json").json) == 2
    client.delete_bucket_policy(Bucket=bucket)
    succeed("forget", "vm1", "--keep-last", 1, "-r", repo)
    forbid_deletion(s3_server, bucket)
    before = {each["Key"] for each in client.list_objects_v2(Bucket=bucket)["Contents"]}
    for _ in range(2):
        assert "the server refuses access to " in fail(55, "prune", "--max-unused", "0%", "-r", repo)
        succeed("check", "--read-packs", "-r", repo)
    assert before <= {each["Key"] for each in client.list_objects_v2(Bucket=bucket)["Contents"]}
    client.delete_bucket_policy(Bucket=bucket)
    succeed("prune", "--max-unused", "0%", "-r", repo)
    assert not before <= {each["Key"] for each in client.list_objects_v2(Bucket=bucket)["Contents"]}
