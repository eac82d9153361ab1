# SPDX-License-Identifier: Apache-2.0
"""Names are UTF-8 whatever the locale: under Latin-1 an image named `Büro` counted as damaged, and `repair` moved it away."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.components import skip_without
from tests.support.measured import measured_program
from tests.support.program import command, environment, read_tree

IMAGE = "Büro"
_LIST = """
import sys
import deltaimg
print(ascii([each.ref.image for each in deltaimg.list_snapshots(deltaimg.open_repository(sys.argv[1]))]))
"""


@pytest.fixture(scope="module")
def latin1(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The variables of a Latin-1 locale, made for the purpose."""
    folder = tmp_path_factory.mktemp("locale")
    program = shutil.which("localedef")
    if program is None:
        skip_without("localedef", "is not installed")
    made = folder / "de_DE.ISO-8859-1"
    done = subprocess.run(
        [str(program), "-i", "de_DE", "-f", "ISO-8859-1", made], capture_output=True, text=True, check=False
    )
    if not made.is_dir():
        skip_without("localedef", done.stderr.strip().replace("\n", " "))
    return {"LOCPATH": str(folder), "LC_ALL": made.name}


@pytest.fixture(params=["latin1", "ascii"])
def variables(request: pytest.FixtureRequest) -> dict[str, str]:
    if request.param == "latin1":
        return dict(request.getfixturevalue("latin1"))
    return {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def run(variables: dict[str, str], *arguments: object, repo: Path) -> bytes:
    done = subprocess.run(
        [os.fsencode(each) for each in command(*arguments)],
        capture_output=True,
        env=environment(repo) | variables,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_verb_finds_an_image_with_an_umlaut(tmp_path: Path, variables: dict[str, str]) -> None:
    image, repo, target = tmp_path / "Büro.raw", tmp_path / "Büro", tmp_path / "zurück"
    content = bytes(range(256)) * 500
    image.write_bytes(content)
    run({}, "init", repo=repo)
    run({}, "backup", image, "--image", IMAGE, repo=repo)
    run(variables, "backup", image, "--image", IMAGE, repo=repo)
    before = read_tree(repo)
    assert os.listdir(os.fsencode(repo / "snapshots")) == [IMAGE.encode()]
    run(variables, "snapshots", IMAGE, repo=repo)
    with measured_program("-X", "utf8", settings=variables) as program:
        # As the program starts itself again in these locales.
        def forked(*words: object) -> str:
            done = program.run(*words, repo=repo)
            assert done.code == 0, done.err
            assert "quarantine" not in done.out
            return done.out

        for verb in (("check",), ("verify", IMAGE), ("show", IMAGE), ("stats",), ("unlock",), ("repair",)):
            forked(*verb)
        assert {name: data for name, data in read_tree(repo).items() if name != "verified"} == before
        forked("restore", IMAGE, target)
        assert target.read_bytes() == content
        forked("pin", IMAGE)
        forked("forget", IMAGE, "--keep-last", "1", "--prune")
        assert "1 snapshot" in forked("check")


def test_the_python_interface_does_so_too(tmp_path: Path, variables: dict[str, str]) -> None:
    """A program of somebody else's keeps the locale that it has."""
    (tmp_path / "image").write_bytes(b"x" * 5000)
    run({}, "init", repo=tmp_path / "repo")
    run({}, "backup", tmp_path / "image", "--image", IMAGE, repo=tmp_path / "repo")
    done = subprocess.run(
        [sys.executable, "-c", _LIST, str(tmp_path / "repo")],
        capture_output=True,
        env=environment(None) | variables,
        check=True,
        timeout=60,
    )
    assert done.stdout.decode().strip() == ascii([IMAGE])
