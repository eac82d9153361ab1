# SPDX-License-Identifier: Apache-2.0
"""Addresses of buckets: what they mean, and that none of them can carry a secret."""

from __future__ import annotations

from pathlib import Path

import pytest

from deltaimg.errors import DeltaimgError, PermissionDenied, StoreUnusable, UsageError
from deltaimg.store import aws_profile
from deltaimg.store.aws_profile import load_profile
from deltaimg.store.bucket_address import parse_bucket_address
from deltaimg.store.open import open_store
from deltaimg.store.s3 import OPTIONS

SECRET = "s3cr3t-of-nobody"


def test_an_address_names_bucket_prefix_and_options() -> None:
    found = parse_bucket_address("s3://bucket/a/b%20c/?endpoint=https://h:9000&region=eu-1", OPTIONS)
    assert (found.bucket, found.prefix) == ("bucket", "a/b c")
    assert found.options == {"endpoint": "https://h:9000", "region": "eu-1"}
    assert parse_bucket_address("s3://bucket", OPTIONS).prefix == ""


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("s3://", "no name of a bucket"),
        ("s3:///prefix", "no name of a bucket"),
        ("s3://b", "no name of a bucket"),
        ("s3://bucket:9000/x", "no name of a bucket"),
        ("s3://bucket/a/../b", "no possible object name"),
        ("s3://bucket/a#b", "'#'"),
        ("s3://bucket?endpoint=", "'endpoint' has no value"),
        ("s3://bucket?region=a&region=b", "more than one"),
        ("s3://bucket?endpoint=h:9000", "no URL of a server"),
        ("s3://bucket?endpoint=ftp://h", "no URL of a server"),
        ("s3://bucket?endpoint=https://h/path", "no URL of a server"),
        ("s3://bucket?style=odd", "neither 'path' nor 'virtual'"),
        ("s3://bucket?ca=/nonexistent", "cannot be read"),
        ("s3://bucket?ca=/etc/hostname", "no certificate"),
        ("s3://bucket?profile=none", "no AWS profile 'none'"),
    ],
)
def test_what_is_no_address_is_refused_and_says_why(address: str, said: str) -> None:
    with pytest.raises(DeltaimgError, match=said):
        open_store(address)


@pytest.mark.parametrize(
    "address",
    [
        f"s3://key:{SECRET}@bucket/prefix",
        f"s3://{SECRET}@bucket",
        f"s3://bucket?secret_access_key={SECRET}",
        f"s3://bucket?endpoint=https://key:{SECRET}@host",
        f"gs://x:{SECRET}@bucket",
        f"az://container?account_key={SECRET}",
    ],
)
def test_a_secret_in_an_address_is_refused_and_not_repeated(address: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_store(address)
    assert SECRET not in f"{caught.value} {caught.value.hint}"


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "obstore.store", None)
    for address in ("s3://bucket", "gs://bucket", "az://container"):
        with pytest.raises(StoreUnusable, match=rf"^{address[:5]}.* needs obstore, which is not installed") as caught:
            open_store(address)
        assert "pip install 'deltaimg[s3]'" in str(caught.value.hint)


# -- profiles ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the two files, of which tests write what they need."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    return tmp_path


def test_a_profile_has_its_keys_from_one_file_and_its_server_from_the_other(
    profiles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (profiles / "config").write_text(
        "[profile offsite]\nregion = eu-1\nendpoint_url = https://h\n[default]\nregion = x\n"
    )
    (profiles / "credentials").write_text(
        f"[offsite]\naws_access_key_id = K\naws_secret_access_key = {SECRET}\naws_session_token=T\n"
    )
    monkeypatch.setenv("AWS_PROFILE", "offsite")
    profile = load_profile(None)
    assert (profile.get("region"), profile.get("endpoint_url")) == ("eu-1", "https://h")
    given = profile.load_credentials()
    assert (given["access_key_id"], given["secret_access_key"], given["token"]) == ("K", SECRET, "T")
    assert SECRET not in f"{profile!r} {profile}"
    assert load_profile("default").get("region") == "x"
    assert load_profile("default").has_credentials is False


def test_keys_of_a_command_are_asked_for_again(profiles: Path) -> None:
    (profiles / "printed").write_text(
        '{"Version": 1, "AccessKeyId": "K", "SecretAccessKey": "S", "Expiration": "2026-11-23T10:00:00Z"}'
    )
    (profiles / "config").write_text(f"[default]\ncredential_process = cat {profiles / 'printed'}\n")
    given = load_profile(None).load_credentials()
    assert given["access_key_id"] == "K"
    assert given["expires_at"] is not None
    assert given["expires_at"].year == 2026


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("[default]\ncredential_process = false\n", "failed with 1"),
        ("[default]\ncredential_process = /nonexistent\n", "cannot be run"),
        (f"[default]\ncredential_process = echo {SECRET}\n", "printed no credentials"),
        ("[default]\naws_access_key_id = K\n", "a key without its secret"),
        (f"{SECRET}\n", "is no file of AWS profiles"),
    ],
)
def test_a_profile_that_gives_no_keys_says_why_and_shows_none(profiles: Path, config: str, said: str) -> None:
    (profiles / "config").write_text(config)
    with pytest.raises(UsageError, match=said) as caught:
        load_profile(None).load_credentials()
    assert SECRET not in f"{caught.value} {caught.value.hint}"


def test_a_login_that_is_made_elsewhere_is_referred_to(profiles: Path) -> None:
    (profiles / "config").write_text("[default]\nsso_session = work\nregion = eu-1\n")
    with pytest.raises(UsageError, match="single sign-on") as caught:
        open_store("s3://bucket")
    assert "export-credentials" in str(caught.value.hint)


def test_without_any_credentials_none_are_looked_for_where_there_is_no_instance(
    profiles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(PermissionDenied, match="there are no credentials"):
        open_store("s3://bucket")
    assert aws_profile.load_profile(None).has_credentials is False
