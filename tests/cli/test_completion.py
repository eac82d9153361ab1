# SPDX-License-Identifier: Apache-2.0
"""TAB in a shell: commands, options, images, snapshots, actions; in bash itself, and by the protocols of zsh and fish."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from deltaimg.cli.app import COMMANDS, build_command
from deltaimg.cli.completion import _COMPLETERS
from tests.cli.conftest import Backups
from tests.support.program import command, environment, succeed


def complete(repo: Path | None, **variables: str) -> list[str]:
    """Run the program as a completion script does."""
    done = subprocess.run(command(), env=environment(repo) | variables, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.stdout.splitlines()


def press_tab(line: str, folder: Path, *, breaks: str = "\"'@><=;|&(:") -> list[str]:
    """Return what bash offers at the end of a line, with the script that the program prints for it."""
    (folder / "deltaimg").write_text(f'#!/bin/sh\nexec {shlex.join(command())} "$@"\n')
    (folder / "deltaimg").chmod(0o755)
    # The shell is found among the processes above; the second command keeps bash from replacing itself by the first.
    shown = subprocess.run(
        ["bash", "-c", f"{shlex.join(command('--show-completion'))}; true"],
        env=environment(None), capture_output=True, text=True, check=True,
    )  # fmt: skip
    script = shown.stdout
    words = [each for each in re.split(f"([{re.escape(breaks)}])| ", line) if each] if breaks else line.split()
    words += [""] * line.endswith(" ")
    state = f"COMP_WORDS=({shlex.join(words)}); COMP_CWORD={len(words) - 1}"
    run = f"{script}\n{state}; _deltaimg_completion deltaimg; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    variables = environment(None)
    variables["PATH"] = f"{folder}:{variables['PATH']}"
    done = subprocess.run(["bash", "-c", run], env=variables, capture_output=True, text=True, check=True, cwd=folder)
    return [each for each in done.stdout.splitlines() if each]


def test_bash_offers_what_fits_where_the_cursor_is(backups: Backups, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    ids = [each["snapshot"][:8] for each in succeed("snapshots", "--json", repo=backups.repo).json]
    repo = f"-r {backups.repo}"
    for line, offered in (
        ("deltaimg rest", ["restore"]),
        (f"deltaimg {repo} snap", ["snapshots"]),
        ("deltaimg parity ", ["add", "repair", "show"]),
        ("deltaimg key ", ["add", "change", "export", "import", "list", "remove"]),
        ("deltaimg backup --comp", ["--compression"]),
        ("deltaimg backup --compression ", ["fast", "default", "best"]),
        ("deltaimg backup --freeze r", ["reflink", "rbd"]),
        ("deltaimg backup --format=q", ["qcow2"]),
        ("deltaimg signature --format ", ["deltaimg", "rdiff", "vcdiff"]),
        ("deltaimg init --encryption ", ["passphrase", "keyfile", "none"]),
        (f"deltaimg restore {repo} v", ["vm1"]),
        (f"deltaimg {repo} restore v", ["vm1"]),
        (f"deltaimg {repo} restore vm1@la", ["latest", "latest~1"]),
        (f"deltaimg {repo} show vm1@", ["latest", "latest~1", *reversed(ids)]),
        (f"deltaimg {repo} diff vm1 vm1@{ids[0]}", [ids[0]]),
        (f"deltaimg {repo} backup x --image ", ["vm1"]),
        ("deltaimg help bac", ["backup"]),
    ):
        assert press_tab(line, tmp_path / "bin") == offered, line
    unbroken = press_tab(f"deltaimg {repo} restore vm1@la", tmp_path / "bin", breaks="")
    assert unbroken == ["vm1@latest", "vm1@latest~1"]


def test_what_is_completed_is_there() -> None:
    """A parameter that was renamed would be completed no more, and nobody would notice."""
    params = {(name, param.name) for name in COMMANDS for param in build_command(name).params}
    known = params | {("", option) for _, option in params}
    assert set(_COMPLETERS) <= known


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_zsh_and_fish_are_offered_the_same(backups: Backups, shell: str) -> None:
    line = f"deltaimg -r {backups.repo} restore vm1@latest"
    variables = {"_DELTAIMG_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_ARGS": line}
    text = "\n".join(complete(None, **variables, _TYPER_COMPLETE_FISH_ACTION="get-args"))
    assert "vm1@latest" in text
    assert "vm1@latest~1" in text
    assert "20" in text, "when each was taken is shown beside it"


def test_a_repository_that_cannot_be_read_offers_nothing_and_says_nothing(tmp_path: Path) -> None:
    words = f"deltaimg restore -r {tmp_path}/nowhere "
    assert complete(None, _DELTAIMG_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD="4") in ([], [""])


def test_names_that_a_shell_would_read_otherwise_are_not_offered(backups: Backups) -> None:
    for name in ("a b", "a$(x)", "a;b", "a'b", "ab"):
        succeed("backup", backups.image, "--image", name, "-q", repo=backups.repo)
    for shell, variables in (
        ("bash", {"COMP_WORDS": "deltaimg restore a", "COMP_CWORD": "2"}),
        ("fish", {"_TYPER_COMPLETE_ARGS": "deltaimg restore a", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}),
    ):
        assert complete(backups.repo, _DELTAIMG_COMPLETE=f"complete_{shell}", **variables) == ["ab"]
