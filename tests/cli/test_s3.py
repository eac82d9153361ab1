# SPDX-License-Identifier: Apache-2.0
"""The program on a real S3 server: everything that it does in a folder, what can be wrong, and that no secret is ever shown."""

from __future__ import annotations

import os
import subprocess
import threading
from pathlib import Path

import pytest

from tests.support.components import skip_without
from tests.support.images import edit_at_random, make_mixed_image
from tests.support.program import command, deltaimg, environment, fail, succeed
from tests.support.s3_servers import SECRET_KEY, S3Server, find_free_ports
from tests.support.slow_line import SlowLine

IMAGE_BYTES = 2_000_001


@pytest.fixture
def image(tmp_path: Path) -> Path:
    make_mixed_image(IMAGE_BYTES, seed=5).save(tmp_path / "vm1.raw")
    return tmp_path / "vm1.raw"


def test_a_repository_in_a_bucket_does_what_one_in_a_folder_does(s3_server: S3Server, tmp_path: Path) -> None:
    bucket = s3_server.make_bucket()
    repo = s3_server.location(bucket, "backups/one")
    synthetic, path = make_mixed_image(IMAGE_BYTES, seed=6), tmp_path / "vm1.raw"
    succeed("init", "-r", repo)
    assert "there is a repository already" in fail(32, "init", "-r", repo)
    contents = []
    for number in range(3):
        synthetic.save(path)
        contents.append(bytes(synthetic.content))
        succeed("backup", path, "--image", "vm1", "-r", repo)
        edit_at_random(synthetic, 5)
        synthetic.write_random(300_000 * number, 50_000)
        path.unlink()
    assert len(succeed("snapshots", "-r", repo, "--json").json) == 3
    for number, content in enumerate(reversed(contents)):
        target = tmp_path / f"restored-{number}"
        succeed("restore", f"vm1@latest~{number}", target, "-r", repo)
        assert target.read_bytes() == content
    succeed("check", "--read-packs", "-r", repo)
    succeed("verify", "-r", repo)
    succeed("parity", "add", "-r", repo)
    succeed("tag", "add", "vm1", "weekly", "-r", repo)
    succeed("flatten", "vm1", "-r", repo)
    succeed("forget", "vm1", "--keep-last", 1, "-r", repo)
    succeed("prune", "--max-unused", "0%", "-r", repo)
    succeed("parity", "add", "-r", repo)
    target = tmp_path / "last"
    succeed("restore", "vm1", target, "-r", repo)
    assert target.read_bytes() == contents[-1]
    client = s3_server.client()
    packs = client.list_objects_v2(Bucket=bucket, Prefix="backups/one/packs/")["Contents"]
    damaged = client.get_object(Bucket=bucket, Key=packs[0]["Key"])["Body"].read()
    client.put_object(Bucket=bucket, Key=packs[0]["Key"], Body=damaged[:-100] + bytes(100))
    assert deltaimg("check", "--read-packs", "-r", repo).code == 48
    succeed("repair", "-r", repo)
    succeed("check", "--read-packs", "-r", repo)
    succeed("restore", "vm1", tmp_path / "repaired", "-r", repo)
    assert (tmp_path / "repaired").read_bytes() == contents[-1]
    assert succeed("unlock", "-r", repo).text.strip() == "no locks"
    listed = [each["Key"] for each in client.list_objects_v2(Bucket=bucket)["Contents"]]
    assert all(name.startswith("backups/one/") for name in listed), "nothing is outside of the prefix"
    assert not [name for name in listed if "/locks/" in name or "/probes/" in name]


def test_two_prefixes_of_a_bucket_do_not_meet(s3_server: S3Server) -> None:
    bucket = s3_server.make_bucket()
    for prefix in ("a", "ab", "a/b"):
        if prefix != "a/b":
            succeed("init", "-r", s3_server.location(bucket, prefix))
    for prefix in ("a", "ab"):
        assert succeed("check", "-r", s3_server.location(bucket, prefix)).code == 0


# -- what can be wrong -------------------------------------------------------------------------------------------------


def test_no_such_bucket(s3_server: S3Server, image: Path) -> None:
    location = s3_server.location("no-such-bucket", "x")
    for arguments in (("init",), ("snapshots",), ("backup", image, "--image", "vm1")):
        assert "there is no bucket 'no-such-bucket'" in fail(59, *arguments, "-r", location)


def test_no_repository(s3_server: S3Server) -> None:
    location = s3_server.location(s3_server.make_bucket(), "x")
    assert "there is no repository here" in fail(31, "snapshots", "-r", location)


def test_a_bucket_of_another_tool(s3_server: S3Server) -> None:
    bucket = s3_server.make_bucket()
    s3_server.client().put_object(Bucket=bucket, Key="x/data/abcd", Body=b"{}")
    location = s3_server.location(bucket, "x")
    assert "is not empty: it has 'data'" in fail(32, "init", "-r", location)
    assert "is not a repository" in fail(31, "snapshots", "-r", location)


@pytest.mark.parametrize(
    ("variable", "value"), [("AWS_SECRET_ACCESS_KEY", "wrong-" + SECRET_KEY), ("AWS_ACCESS_KEY_ID", "nobody")]
)
def test_wrong_credentials(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, image: Path
) -> None:
    location = s3_server.location(s3_server.make_bucket(), "x")
    succeed("init", "-r", location)
    monkeypatch.setenv(variable, value)
    for arguments in (("init",), ("snapshots",), ("backup", image, "--image", "vm1")):
        said = fail(55, *arguments, "-r", location)
        assert "the server refuses the credentials" in said
        assert value not in said


def test_no_credentials(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    location = s3_server.location(s3_server.make_bucket(), "x")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    assert "there are no credentials" in fail(55, "snapshots", "-r", location)


def test_a_host_that_cannot_be_reached(s3_server: S3Server) -> None:
    (port,) = find_free_ports(1)
    assert "refuses connections" in fail(54, "snapshots", "-r", s3_server.location("bucket", port=port))
    assert "its name cannot be resolved" in fail(
        54, "snapshots", "-r", "s3://bucket?endpoint=http://no-such-host.invalid"
    )


def test_a_host_that_does_not_speak_tls(s3_server: S3Server) -> None:
    location = s3_server.location("bucket").replace("http://", "https://")
    run = deltaimg("snapshots", "-r", location)
    assert run.code == 54
    assert "does not speak TLS" in run.err


def test_every_server_answers_in_its_own_time(s3_server: S3Server, image: Path) -> None:
    """A line with a round trip of 50 ms changes nothing but the time that it takes."""
    bucket = s3_server.make_bucket()
    with SlowLine(s3_server.port, delay_s=0.025) as line:
        repo = s3_server.location(bucket, port=line.port)
        succeed("init", "-r", repo)
        succeed("backup", image, "--image", "vm1", "-r", repo)
        succeed("verify", "-r", repo)


# -- secrets -----------------------------------------------------------------------------------------------------------


def test_the_secret_is_shown_nowhere(s3_server: S3Server, tmp_path: Path, image: Path) -> None:
    """Not in what is printed, with or without errors; not in arguments; not in the bucket; not in what this host keeps."""
    bucket = s3_server.make_bucket()
    repo = s3_server.location(bucket)
    said: list[bytes] = []

    def run(*arguments: object) -> None:
        done = deltaimg(*arguments, "-r", repo)
        said.append(done.out + done.err.encode())

    run("init")
    run("backup", image, "--image", "vm1", "-v")
    run("snapshots", "--json")
    run("snapshots", "-v")
    run("check", "-v")
    for prefix, code in (("no-such-bucket", 59),):
        done = deltaimg("snapshots", "--json", "-r", s3_server.location(prefix))
        assert done.code == code
        said.append(done.out + done.err.encode())
    wrong = environment(None) | {"AWS_ACCESS_KEY_ID": "nobody"}
    done = subprocess.run(command("check", "-v", "-r", repo), env=wrong, capture_output=True, check=False)
    assert done.returncode == 55
    said.append(done.stdout + done.stderr)
    client = s3_server.client()
    keys = [each["Key"] for each in client.list_objects_v2(Bucket=bucket)["Contents"]]
    said += [client.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys]
    for name in ("XDG_STATE_HOME", "XDG_CACHE_HOME"):
        said += [path.read_bytes() for path in Path(os.environ[name]).rglob("*") if path.is_file()]
    assert len(b"".join(said)) > 10_000
    assert not [each for each in said if SECRET_KEY.encode() in each]


def test_the_secret_is_in_no_traceback(s3_server: S3Server) -> None:
    """Of an error that nobody translated: what Python prints, with all local variables."""
    script = (
        "import sys, traceback\n"
        "from deltaimg.store.open import open_store\n"
        "store = open_store(sys.argv[1])\n"
        "try:\n"
        "    store.get('maps/none')\n"
        "except Exception as error:\n"
        "    found = traceback.TracebackException.from_exception(error, capture_locals=True)\n"
        "    print(''.join(found.format()), repr(store), repr(vars(store)), repr(vars(store.inner)))\n"
    )
    location = s3_server.location("no-such-bucket")
    done = subprocess.run(
        [*command()[:1], "-c", script, location], env=environment(None), capture_output=True, check=True, text=True
    )
    assert "PlaceNotFound" in done.stdout
    assert SECRET_KEY not in done.stdout + done.stderr


# -- how the server is reached -----------------------------------------------------------------------------------------


def test_a_server_in_virtual_host_style(s3_server: S3Server) -> None:
    """The bucket's name is in front of the host's; names below localhost lead to this machine."""
    bucket = s3_server.make_bucket()
    try:
        __import__("socket").getaddrinfo(f"{bucket}.localhost", s3_server.port)
    except OSError:
        skip_without("localhost", "names below it are not resolved here")
    location = f"s3://{bucket}?endpoint=http://localhost:{s3_server.port}&style=virtual"
    run = deltaimg("snapshots", "-r", location)
    assert f"{bucket}.localhost" not in run.err
    assert run.code in (31, 59), run.err


def test_settings_of_a_profile(s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = s3_server.make_bucket()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    (tmp_path / "config").write_text(f"[profile offsite]\nendpoint_url = {s3_server.endpoint}\nregion = us-east-1\n")
    (tmp_path / "credentials").write_text(
        f"[offsite]\naws_access_key_id = testkey\naws_secret_access_key = {SECRET_KEY}\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    succeed("init", "-r", f"s3://{bucket}/x?profile=offsite")
    monkeypatch.setenv("AWS_PROFILE", "offsite")
    assert succeed("snapshots", "-r", f"s3://{bucket}/x", "--json").json == []


def test_two_hosts_exclude_each_other_on_a_server_that_ignores_conditions(
    rclone_server: S3Server, tmp_path: Path
) -> None:
    bucket = rclone_server.make_bucket()
    repo = rclone_server.location(bucket, "x")
    succeed("init", "-r", repo)
    make_mixed_image(IMAGE_BYTES, seed=7).save(tmp_path / "vm1.raw")
    codes: list[int] = []

    def back_up() -> None:
        codes.append(deltaimg("backup", tmp_path / "vm1.raw", "--image", "vm1", "-r", repo).code)

    threads = [threading.Thread(target=back_up) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert set(codes) <= {0, 33}
    assert len(succeed("snapshots", "-r", repo, "--json").json) == codes.count(0) >= 1
    succeed("check", "--read-packs", "-r", repo)
