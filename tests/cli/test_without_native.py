# SPDX-License-Identifier: Apache-2.0
"""Without a compiler at installation, everything works all the same, more slowly."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.program import succeed


@pytest.fixture(autouse=True)
def reference_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DELTAIMG_KERNELS", "reference")


def test_a_second_backup_of_random_bytes_and_zeros_with_few_changes(tmp_path: Path) -> None:
    repo, image, restored = tmp_path / "repo", tmp_path / "image", tmp_path / "restored"
    content = bytearray(os.urandom(1 << 20) + bytes(3 << 20))
    succeed("init", "-r", repo)
    for number in range(2):
        content[5000:5010] = bytes([number]) * 10
        image.write_bytes(content)
        succeed("backup", image, "--image", "vm1", "-q", repo=repo)
    for verb in ("check", "verify"):
        succeed(verb, "-q", repo=repo)
    succeed("restore", "vm1", restored, "-q", repo=repo)
    assert restored.read_bytes() == content
    assert "reference" in succeed("version", "-v").text


def test_files_are_signed_compared_and_patched(tmp_path: Path) -> None:
    old, new, signature, delta, made = (tmp_path / name for name in ("old", "new", "signature", "delta", "made"))
    old.write_bytes(os.urandom(20_000) + bytes(20_000))
    new.write_bytes(b"new" + old.read_bytes()[5000:])
    succeed("signature", old, signature)
    succeed("delta", signature, new, delta)
    succeed("patch", old, delta, made)
    assert made.read_bytes() == new.read_bytes()
