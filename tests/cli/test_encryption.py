# SPDX-License-Identifier: Apache-2.0
"""Encrypted repositories from the command line: made, opened in every way that a key is given, and their keys managed."""

from __future__ import annotations

import io
import os
import pty
import resource
import select
import shutil
import stat
import struct
import subprocess
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import pytest

from deltaimg.errors import (
    EncryptionMissing,
    KeyNeeded,
    LastKey,
    PaddingMissing,
    RepositoryDamaged,
    UsageError,
    WrongKey,
)
from deltaimg.format.config import build_config, parse_config
from tests.support.components import small_tmpfs
from tests.support.images import make_mixed_image
from tests.support.program import Run, command, environment, read_tree

CANARY = "canary-Gänsefüßchen 42"


def run(*arguments: object, **variables: str) -> Run:
    """Run deltaimg with variables of the environment."""
    done = subprocess.run(
        command(*arguments), capture_output=True, env=environment(None) | variables, check=False, timeout=120
    )
    found = Run(done.returncode, done.stdout, done.stderr.decode())
    assert "Traceback" not in found.err, found.err
    assert CANARY not in found.err + done.stdout.decode()
    return found


def succeed(*arguments: object, **variables: str) -> Run:
    found = run(*arguments, **variables)
    assert found.code == 0, found.err
    return found


def fail(error: type[Exception], *arguments: object, **variables: str) -> str:
    found = run(*arguments, **variables)
    assert found.code == error.exit_code, (found.code, found.err)  # type: ignore[attr-defined]
    return found.err


def read_everything(*folders: Path) -> Iterator[tuple[Path, bytes]]:
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_file():
                yield path, path.read_bytes()


@pytest.fixture
def image(tmp_path: Path, own_cache: None) -> Path:
    make_mixed_image(1_000_001).save(tmp_path / "vm1.raw")
    return tmp_path / "vm1.raw"


def test_an_encrypted_repository_is_used_with_a_key_file(image: Path, tmp_path: Path) -> None:
    repo, key_file = tmp_path / "repo", tmp_path / "key"
    made = succeed("init", "-r", repo, "--encryption", "keyfile", "--key-file", key_file, "--json")
    assert made.json["encryption"] == "aes-256-gcm"
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    use = ("-r", repo, "--key-file", key_file, "-q")
    for _ in range(2):
        succeed("backup", image, "--image", "vm1", *use)
    for words in (
        ("check", "--read-packs"),
        ("verify",),
        ("prune",),
        ("parity", "add"),
        ("snapshots",),
        ("stats",),
        ("repair",),
    ):
        succeed(*words, *use)
    succeed("restore", "vm1", tmp_path / "out", *use)
    assert (tmp_path / "out").read_bytes() == image.read_bytes()
    assert "no key was given" in fail(KeyNeeded, "snapshots", "-r", repo)
    key_file.chmod(0o640)
    assert "others than its owner" in fail(UsageError, "snapshots", *use)


def test_a_padded_repository_is_made_and_used(image: Path, tmp_path: Path) -> None:
    repo, key_file = tmp_path / "repo", tmp_path / "key"
    assert "only an encrypted repository is padded" in fail(
        UsageError, "init", "-r", repo, "--padding", "--encryption", "none"
    )
    made = succeed("init", "-r", repo, "--encryption", "keyfile", "--key-file", key_file, "--padding", "--json")
    assert (made.json["encryption"], made.json["padding"]) == ("aes-256-gcm", "padme")
    use = ("-r", repo, "--key-file", key_file)
    succeed("backup", image, "--image", "vm1", *use)
    succeed("restore", "vm1", tmp_path / "out", *use)
    assert (tmp_path / "out").read_bytes() == image.read_bytes()
    assert b"aes-256-gcm, padded" in succeed("doctor", *use).out
    bare, copy = repo / "config", tmp_path / "copy"
    shutil.copytree(repo, copy)
    bare.chmod(0o600)
    bare.write_bytes(build_config(msgspec.structs.replace(parse_config(bare.read_bytes()), padding=None)))
    for words in (("backup", image, "--image", "vm1"), ("restore", "vm1", tmp_path / "again"), ("check",)):
        assert "'config' says that nothing in this repository is" in fail(PaddingMissing, *words, *use)
    bare.unlink()
    succeed("repair", "--from", copy, *use)
    succeed("restore", "vm1", tmp_path / "again", *use)


def test_a_member_of_a_padded_family_is_padded_unless_told_otherwise(tmp_path: Path) -> None:
    key = ("--key-file", tmp_path / "key")
    succeed("init", "-r", tmp_path / "model", "--encryption", "keyfile", *key, "--padding")

    def make(name: str, *words: object) -> object:
        return succeed("init", "-r", tmp_path / name, "--like", tmp_path / "model", *key, *words, "--json").json[
            "padding"
        ]

    assert make("same") == make("keyfile", "--encryption", "keyfile") == "padme"
    assert make("open", "--encryption", "none") is None
    assert make("bare", "--no-padding") is None


def test_a_process_that_has_a_key_leaves_no_core_dump(image: Path, tmp_path: Path) -> None:
    repo, hook = tmp_path / "repo", tmp_path / "limit"
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    limits = []
    for encryption in ("none", "keyfile"):
        use = ("-r", repo / encryption, *(("--key-file", tmp_path / "key") if encryption == "keyfile" else ()))
        succeed("init", "--encryption", encryption, *use)
        before = resource.getrlimit(resource.RLIMIT_CORE)
        resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))  # which the program is started with
        try:
            command = f"grep '^Max core' /proc/self/limits > {hook}"
            succeed("backup", image, "--image", "vm1", "--freeze", "hook", "--pre-freeze", command, *use)
        finally:
            resource.setrlimit(resource.RLIMIT_CORE, before)
        limits.append(hook.read_text().split()[4])
    assert limits == ["unlimited" if hard == resource.RLIM_INFINITY else str(hard), "0"]


def test_a_passphrase_is_taken_from_every_place_and_appears_nowhere(image: Path, tmp_path: Path) -> None:
    repo, file = tmp_path / "repo", tmp_path / "passphrase"
    file.write_text(CANARY + "\nsecond line\n")
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "deltaimg.passphrase").write_text(CANARY)
    succeed("init", "-r", repo, "--encryption", "passphrase", DELTAIMG_PASSPHRASE=CANARY)
    succeed("backup", image, "--image", "vm1", "-r", repo, "--passphrase-file", file, "-v")
    succeed("snapshots", "-r", repo, "--passphrase-command", f"cat {file}", "--json")
    succeed("snapshots", "-r", repo, CREDENTIALS_DIRECTORY=str(credentials))
    assert "opens none of its keys" in fail(WrongKey, "snapshots", "-r", repo, DELTAIMG_PASSPHRASE="other")
    (tmp_path / "empty").write_text("\n")
    assert "the passphrase is empty" in fail(
        UsageError, "snapshots", "-r", repo, "--passphrase-file", tmp_path / "empty"
    )
    assert "exit code 3" in fail(UsageError, "snapshots", "-r", repo, "--passphrase-command", "exit 3")
    caches = [Path(os.environ[name]) for name in ("XDG_CACHE_HOME", "XDG_STATE_HOME")]
    content = image.read_bytes()[200_000:200_060]
    for path, data in read_everything(repo, *caches):
        assert CANARY.encode() not in data, path
        if path.is_relative_to(repo):
            assert content not in data or not any(content), path
        else:
            assert not path.stat().st_mode & 0o077 or not path.parent.stat().st_mode & 0o077, path


def test_keys_are_added_changed_listed_and_removed(image: Path, tmp_path: Path) -> None:
    repo, first, second = tmp_path / "repo", tmp_path / "first", tmp_path / "second"
    succeed("init", "-r", repo, "--encryption", "keyfile", "--key-file", first, "-q")
    succeed("key", "add", "-r", repo, "--key-file", first, "--new-key-file", second, "--label", "host 2", "-q")
    listed = succeed("key", "list", "-r", repo, "--json").json
    assert [(each["type"], each["label"]) for each in listed] == [("keyfile", ""), ("keyfile", "host 2")]
    shown = succeed("key", "list", "-r", repo).text
    assert shown.count(listed[0]["created"][:4] + "-") == 2, "the day, as everywhere else"
    succeed("snapshots", "-r", repo, "--key-file", second)
    third = tmp_path / "third"
    succeed("key", "change", "-r", repo, "--key-file", first, "--new-key-file", third, "-q")
    fail(WrongKey, "snapshots", "-r", repo, "--key-file", first)
    succeed("key", "remove", "host 2", "-r", repo, "--key-file", third, "-q")
    fail(WrongKey, "snapshots", "-r", repo, "--key-file", second)
    (left,) = succeed("key", "list", "-r", repo, "--json").json
    assert "its only key" in fail(LastKey, "key", "remove", left["id"], "-r", repo, "--key-file", third)
    for words in (("frobnicate",), ("remove",), ("list", "x")):
        fail(UsageError, "key", *words, "-r", repo)


def test_a_key_is_written_outside_of_repositories_and_whole_or_not_at_all(tmp_path: Path) -> None:
    repo, key = tmp_path / "repo", tmp_path / "key"
    given = ("-r", repo, "--key-file", key, "-q")
    succeed("init", *given, "--encryption", "keyfile")
    before = read_tree(repo)
    for arguments in (("add", "--new-key-file", repo / "key"), ("export", repo / "text"), ("export", repo / "config")):
        assert f"is in the repository {repo}" in fail(UsageError, "key", *arguments, *given)
    assert read_tree(repo) == before
    assert "cannot be written: file exists" in fail(UsageError, "key", "export", key, *given)
    with small_tmpfs(tmp_path / "full", 4096) as folder:
        (folder / "filler").write_bytes(bytes(4096))
        for arguments in (("add", "--new-key-file", folder / "key"), ("export", folder / "text")):
            assert "no space left on device" in fail(UsageError, "key", *arguments, *given)
        assert os.listdir(folder) == ["filler"]


def test_a_recovery_text_opens_a_repository_whose_keys_are_lost(image: Path, tmp_path: Path) -> None:
    repo, first, second, paper = (tmp_path / name for name in ("repo", "first", "second", "paper"))
    succeed("init", "-r", repo, "--encryption", "keyfile", "--key-file", first, "-q")
    succeed("backup", image, "--image", "vm1", "-r", repo, "--key-file", first, "-q")
    succeed("key", "export", paper, "-r", repo, "--key-file", first, "-q")
    assert stat.S_IMODE(paper.stat().st_mode) == 0o600
    assert succeed("key", "export", "-r", repo, "--key-file", first).text == paper.read_text()
    for slot in (repo / "keys").iterdir():
        slot.unlink()
    fail(WrongKey, "snapshots", "-r", repo, "--key-file", first)
    lines = paper.read_text().splitlines()
    for number in range(1, 9):
        wrong = [*lines]
        wrong[number] = lines[number][:5] + ("0" if lines[number][5] != "0" else "1") + lines[number][6:]
        paper.write_text("\n".join(wrong))
        message = fail(UsageError, "key", "import", paper, "-r", repo, "--new-key-file", second)
        assert f"line {number} of the recovery text is not right" in message
        second.unlink(missing_ok=True)
    paper.write_text("\n\n".join(line.upper() for line in lines).replace("DELTAIMG-RECOVERY-1", "deltaimg-recovery-1"))
    succeed("key", "import", paper, "-r", repo, "--new-key-file", second, "--label", "new", "-q")
    succeed("verify", "-r", repo, "--key-file", second, "-q")
    other = tmp_path / "other"
    succeed("init", "-r", other, "--encryption", "keyfile", "--key-file", first, "-q")
    fail(WrongKey, "key", "import", paper, "-r", other, "--new-key-file", second)


def test_the_recovery_text_is_scanned_from_a_qr_code(image: Path, tmp_path: Path) -> None:
    zxingcpp = pytest.importorskip("zxingcpp", reason="what reads QR codes is not installed")
    pytest.importorskip("segno", reason="what draws QR codes is not installed")
    use = ("-r", tmp_path / "repo", "--key-file", tmp_path / "key")
    succeed("init", *use, "--encryption", "keyfile", "-q")
    text = succeed("key", "export", *use).text
    picture = tmp_path / "code.png"
    succeed("key", "export", picture, "--qr", *use, "-q")
    assert stat.S_IMODE(picture.stat().st_mode) == 0o600
    drawn = succeed("key", "export", "--qr", *use).text.splitlines()
    upper, lower = ([[255 * (character in shown) for character in line] for line in drawn] for shown in ("█▀", "█▄"))
    shown = np.array([row for pair in zip(upper, lower, strict=True) for row in pair], np.uint8)
    for pixels in (read_png(picture.read_bytes()), np.kron(shown, np.ones((4, 4), np.uint8))):
        (found,) = zxingcpp.read_barcodes(pixels)
        assert found.text == text.rstrip("\n")
    pytest.importorskip("PIL", reason="what opens pictures is not installed")
    succeed("key", "import", picture, "-r", tmp_path / "repo", "--new-key-file", tmp_path / "second", "-q")
    succeed("snapshots", "-r", tmp_path / "repo", "--key-file", tmp_path / "second")
    for bad, problem in ((picture.read_bytes()[:500], "cannot be read"), (make_white_png(), "no QR code")):
        (tmp_path / "bad.png").write_bytes(bad)
        assert problem in fail(UsageError, "key", "import", tmp_path / "bad.png", "-r", tmp_path / "repo")
    assert "--qr is for 'export'" in fail(UsageError, "key", "list", "--qr", "-r", tmp_path / "repo")
    before = picture.read_bytes()
    fail(UsageError, "key", "export", picture, "--qr", *use)
    assert picture.read_bytes() == before
    without = tmp_path / "without"
    without.mkdir()
    (without / "segno.py").write_text("raise ImportError")
    message = fail(UsageError, "key", "export", "--qr", *use, PYTHONPATH=f"{without}:{Path(__file__).parents[2]}")
    assert "segno>=1.6" in message


def make_white_png() -> bytes:
    from PIL import Image

    out = io.BytesIO()
    Image.new("L", (60, 60), 255).save(out, "PNG")
    return out.getvalue()


def read_png(data: bytes) -> npt.NDArray[np.uint8]:
    """Return the pixels of a PNG of one bit a pixel, as segno writes it: rows as they are, or what is added to those above."""
    width, height, depth, colour = struct.unpack(">IIBB", data[16:26])
    assert (depth, colour) == (1, 0)
    place, packed = 8, b""
    while place < len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        if data[place + 4 : place + 8] == b"IDAT":
            packed += data[place + 8 : place + 8 + length]
        place += length + 12
    rows = np.frombuffer(zlib.decompress(packed), np.uint8).reshape(height, -1)
    pixels = np.zeros_like(rows[:, 1:])
    for number, row in enumerate(rows):
        assert row[0] in (0, 2)
        pixels[number] = row[1:] + (pixels[number - 1] if row[0] else 0)
    return np.unpackbits(pixels, axis=1)[:, :width] * np.uint8(255)


def test_a_repository_that_lost_its_encryption_is_refused(image: Path, tmp_path: Path) -> None:
    repo, bare, key_file = tmp_path / "repo", tmp_path / "bare", tmp_path / "key"
    succeed("init", "-r", repo, "--encryption", "keyfile", "--key-file", key_file, "-q")
    succeed("init", "-r", bare, "--encryption", "none", "-q")
    assert "a key is given for it" in fail(EncryptionMissing, "snapshots", "-r", bare, "--key-file", key_file)
    assert "DELTAIMG_KEY_FILE" in run("snapshots", "-r", bare, "--key-file", key_file).err
    told = succeed("init", "-r", tmp_path / "other", "--encryption", "none", DELTAIMG_KEY_FILE=str(key_file))
    assert "commands refuse it while a key is given" in told.err
    # Whoever operates the store exchanges the config, and hopes that the next backup is in the clear.
    (repo / "config").unlink()
    (repo / "config").write_bytes((bare / "config").read_bytes())
    before = dict(read_everything(repo))
    assert "it was when this host last opened it" in fail(
        EncryptionMissing, "backup", image, "--image", "vm1", "-r", repo
    )
    assert dict(read_everything(repo)) == before
    assert "not encrypted, and has no keys" in fail(UsageError, "key", "list", "-r", bare)


def test_members_of_a_family_are_encrypted_alike_and_synced(image: Path, tmp_path: Path) -> None:
    first, second, key_file = tmp_path / "first", tmp_path / "second", tmp_path / "key"
    succeed("init", "-r", first, "--encryption", "keyfile", "--key-file", key_file, "-q")
    succeed("backup", image, "--image", "vm1", "-r", first, "--key-file", key_file, "-q")
    assert "no key was given" in fail(KeyNeeded, "init", "-r", second, "--like", first)
    told = succeed("init", "-r", second, "--like", first, "--encryption", "keyfile", "--key-file", key_file)
    assert f"a recovery text of {first} makes a key of this one as well" in told.text
    succeed("key", "export", tmp_path / "paper", "-r", first, "--key-file", key_file)
    succeed("key", "import", tmp_path / "paper", "-r", second, "--new-key-file", tmp_path / "new")
    succeed("sync", first, second, "-q", DELTAIMG_KEY_FILE=str(key_file))
    succeed("verify", "-r", second, "--key-file", key_file, "-q")


def test_a_repository_is_encrypted_by_a_sync_and_opened_by_one(image: Path, tmp_path: Path) -> None:
    plain, sealed, back, key_file = (tmp_path / name for name in ("plain", "sealed", "back", "key"))
    succeed("init", "-r", plain, "--encryption", "none", "-q")
    succeed("backup", image, "--image", "vm1", "-r", plain, "-q")
    succeed("init", "-r", sealed, "--like", plain, "--encryption", "keyfile", "--key-file", key_file, "-q")
    key = {"DELTAIMG_KEY_FILE": str(key_file)}
    told = succeed("sync", plain, sealed, "--json", **key)
    assert told.json["copied"]
    assert "stored again" not in told.err
    content = image.read_bytes()[200_000:200_060]
    assert not any(content in data for _, data in read_everything(sealed))
    assert not succeed("sync", plain, sealed, "--json", **key).json["copied"]
    succeed("init", "-r", back, "--like", sealed, "--encryption", "none", "-q", **key)
    assert f"{back} is not encrypted: whoever can read it" in succeed("sync", sealed, back, "-q", **key).err
    assert not succeed("sync", sealed, back, "-q", **key).err, "said once"
    for repo, variables in ((sealed, key), (back, {})):
        succeed("verify", "-r", repo, "-q", **variables)
        succeed("restore", "vm1", tmp_path / "out", "--force", "-r", repo, "-q", **variables)
        assert (tmp_path / "out").read_bytes() == image.read_bytes()
        (tmp_path / "out").unlink()


@pytest.mark.parametrize("how", ["missing", "damaged", "all of it"])
def test_key_slots_that_are_lost_are_taken_from_a_copy(image: Path, tmp_path: Path, how: str) -> None:
    repo, copy, other, key_file = (tmp_path / name for name in ("repo", "copy", "other", "key"))
    key = {"DELTAIMG_KEY_FILE": str(key_file)}
    succeed("init", "-r", repo, "--encryption", "keyfile", "-q", **key)
    succeed("backup", image, "--image", "vm1", "-r", repo, "-q", **key)
    succeed("init", "-r", other, "--encryption", "keyfile", "-q", **key)
    shutil.copytree(repo, copy)
    (slot,) = (repo / "keys").iterdir()
    slot.unlink()
    if how == "damaged":
        slot.write_bytes(b"x" * 400)
    if how == "all of it":
        (repo / "config").unlink()
    if how == "missing":
        said = fail(WrongKey, "snapshots", "-r", repo, **key)
        assert "none is left: 'deltaimg repair --from COPY'" in said
        fail(WrongKey, "repair", "--from", other, "-r", repo, **key)
        assert not list((repo / "keys").iterdir())
    report = succeed("repair", "--from", copy, "-r", repo, "--json", **key).json
    assert f"keys/{slot.name}" in report["copied"]
    assert (repo / "config").read_bytes() == (copy / "config").read_bytes()
    succeed("verify", "-r", repo, "-q", **key)
    assert not succeed("repair", "--from", copy, "-r", repo, "--json", **key).json["copied"]


def test_a_key_that_was_removed_is_not_taken_from_a_copy_that_has_it(image: Path, tmp_path: Path) -> None:
    """Whoever stole it would open the repository again."""
    repo, copy, first, second = (tmp_path / name for name in ("repo", "copy", "first", "second"))
    succeed("init", "-r", repo, "--encryption", "keyfile", "--key-file", first, "-q")
    succeed("key", "add", "-r", repo, "--key-file", first, "--new-key-file", second, "--label", "stolen", "-q")
    succeed("backup", image, "--image", "vm1", "-r", repo, "--key-file", first, "-q")
    shutil.copytree(repo, copy)
    succeed("key", "remove", "stolen", "-r", repo, "--key-file", first, "-q")
    succeed("repair", "--from", copy, "-r", repo, "--key-file", first, "-q")
    fail(WrongKey, "repair", "--from", copy, "-r", repo, "--key-file", second)
    fail(WrongKey, "snapshots", "-r", repo, "--key-file", second)


def test_at_a_terminal_a_passphrase_is_asked_for_twice_and_never_shown(image: Path, tmp_path: Path) -> None:
    repo = tmp_path / "repo"

    def answer(words: tuple[object, ...], *answers: str) -> tuple[int, str]:
        pid, terminal = pty.fork()
        if pid == 0:
            os.execvpe(command()[0], command(*words), environment(None))
        shown, answered, left = b"", 0, list(answers)
        with suppress(OSError):  # which is how a terminal ends
            while select.select([terminal], [], [], 60)[0] and (piece := os.read(terminal, 4096)):
                shown += piece
                if left and shown[answered:].endswith(b": "):
                    answered = len(shown)
                    os.write(terminal, left.pop(0).encode() + b"\n")
        os.close(terminal)
        _, status = os.waitpid(pid, 0)
        return os.waitstatus_to_exitcode(status), shown.decode()

    code, shown = answer(("init", "-r", repo), CANARY, "other")
    assert code == UsageError.exit_code
    assert "the two passphrases differ" in shown
    code, shown = answer(("init", "-r", repo), CANARY, CANARY)
    assert code == 0, shown
    assert "New passphrase (empty: no encryption):" in shown
    assert CANARY not in shown
    code, shown = answer(("snapshots", "-r", repo), CANARY)
    assert code == 0, shown
    assert CANARY not in shown
    code, shown = answer(("snapshots", "-r", repo), "mistyped", "once more", CANARY)
    assert code == 0, shown
    assert shown.count("Wrong. Passphrase of") == 2
    code, shown = answer(("snapshots", "-r", repo), *["mistyped"] * 3, CANARY)
    assert code == WrongKey.exit_code, shown
    assert shown.count("Passphrase of") == 3
    code, shown = answer(("init", "-r", tmp_path / "bare"), "")
    assert code == 0, shown
    assert "not encrypted" in shown


def test_a_repository_that_was_set_back_is_refused_by_check_until_it_is_accepted(image: Path, tmp_path: Path) -> None:
    repo, key_file, copy = tmp_path / "repo", tmp_path / "key", tmp_path / "copy"
    use = ("-r", repo, "--key-file", key_file)
    succeed("init", *use, "--encryption", "keyfile", "-q")
    succeed("backup", image, "--image", "vm1", *use, "-q")
    shutil.copytree(repo, copy)
    succeed("backup", image, "--image", "vm1", *use, "-q")
    succeed("check", *use, "-q")
    shutil.rmtree(repo)
    copy.rename(repo)
    message = fail(RepositoryDamaged, "check", *use)
    assert "older than the one of 2 snapshots that this host saw on 20" in message
    assert "'deltaimg check --accept-state' accepts it" in message
    assert "was set back" in succeed("backup", image, "--image", "vm1", *use).err
    accepted = succeed("check", "--accept-state", *use, "--json").json["accepted"]
    assert len(accepted) == 1
    assert "rosters/vm1/" in accepted[0]
    assert "accepted" not in succeed("check", *use, "--json").json
    assert "nothing had to be accepted" in succeed("check", "--accept-state", *use).text
    succeed("backup", image, "--image", "vm1", *use)


def test_what_another_host_forgot_altogether_is_no_alarm(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo, key_file = tmp_path / "repo", tmp_path / "key"
    use = ("-r", repo, "--key-file", key_file, "-q")
    succeed("init", *use, "--encryption", "keyfile")
    for name in ("vm1", "vm2"):
        succeed("backup", image, "--image", name, *use)
    with monkeypatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path / "another host"))
        succeed("forget", "vm2@latest", "--force", *use)
    succeed("check", *use)
    succeed("prune", *use)
