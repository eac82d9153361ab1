# SPDX-License-Identifier: Apache-2.0
"""Commands and examples in the documentation run; generated parts are up to date; what is named exists."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from contextlib import ExitStack
from pathlib import Path

import pytest

from deltaimg.cli.app import COMMANDS, build_command
from tests.support.images import make_mixed_image
from tests.support.program import environment
from tests.support.s3_servers import S3Server
from tests.support.sshd import SshServer, ssh_server

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
_BLOCK = re.compile(r"(?P<mark><!-- not run: (?P<reason>[^>]*) -->\s*)?```console\n(?P<body>.*?)```", re.DOTALL)


def commands_of(document: Path) -> list[tuple[str, str | None]]:
    """Return each command of a document, and why it is not run, if it is not."""
    return [
        (line[2:], block["reason"])
        for block in _BLOCK.finditer(document.read_text())
        for line in block["body"].splitlines()
        if line.startswith("$ ")
    ]


@pytest.mark.parametrize("document", [d for d in DOCUMENTS if commands_of(d)], ids=lambda d: d.name)
def test_every_command_shown_runs(document: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    make_mixed_image(3_000_001).save(tmp_path / "vm1.raw")
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "deltaimg"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m deltaimg "$@"\n')
    program.chmod(0o755)
    paths = environment(None)
    paths["PATH"] = f"{program.parent}:{paths['PATH']}"
    paths["PYTHONPATH"] = str(ROOT)
    with ExitStack() as stack:
        if document.name == "offsite.md":
            server = stack.enter_context(
                ssh_server(tmp_path / "ssh", subsystem=f"internal-sftp -d {tmp_path}/ssh/root")
            )
            paths |= offsite_environment(request.getfixturevalue("s3_server"), server)
        run_commands(document, tmp_path, paths)


def run_commands(document: Path, tmp_path: Path, paths: dict[str, str]) -> None:
    """Run all commands of a document, one after another, in one folder."""
    for line, reason in commands_of(document):
        if reason is not None:
            print(f"not run ({reason}): {line}")
            continue
        done = subprocess.run(
            ["bash", "-c", line], cwd=tmp_path, env=paths, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"


def offsite_environment(server: S3Server, ssh: SshServer) -> dict[str, str]:
    """Return what leads the commands of docs/offsite.md to servers of the tests: a bucket, and a host called `offsite`."""
    server.client().create_bucket(Bucket="backups")
    ssh.configure_client(f"Host offsite\n  HostName 127.0.0.1\n  Port {ssh.port}\n  IdentityFile ~/.ssh/id_ed25519\n")
    return {"AWS_ENDPOINT_URL": server.endpoint, **ssh.environment()}


def test_the_python_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_mixed_image(3_000_001).save("vm1.raw")
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(), re.DOTALL)
    assert len(blocks) >= 6
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "docs/python.md", "exec"), names)


def test_generated_parts_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "docs", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{done.stdout}{done.stderr}run scripts/docs"


def test_every_command_is_documented() -> None:
    text = (ROOT / "docs" / "cli.md").read_text()
    for name in COMMANDS:
        assert f"### deltaimg {name}\n" in text


def test_every_variable_of_an_option_is_listed() -> None:
    listed = (ROOT / "docs" / "cli.md").read_text().partition("\n## Environment\n")[2].partition("\n## ")[0]
    params = [param for name in COMMANDS for param in build_command(name).params]
    variables = {param.envvar for param in params if getattr(param, "envvar", None)}
    assert {"DELTAIMG_REPO", "DELTAIMG_KEY_FILE"} <= variables
    assert not [name for name in variables if f"`{name}`" not in listed]


def test_every_extra_is_listed() -> None:
    text = (ROOT / "README.md").read_text()
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert not [name for name in extras if name not in ("dev", "fuzz") and f"| `{name}` |" not in text]


def test_every_public_name_is_documented() -> None:
    import deltaimg

    text = (ROOT / "docs" / "python.md").read_text()
    for name in deltaimg.__all__:
        if name not in ("__version__", "Progress", "Repository", "SnapshotReader"):
            assert name in text, name
        assert getattr(deltaimg, name) is not None


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: d.name)
def test_links_and_modules_that_are_named_exist(document: Path) -> None:
    text = document.read_text()
    for target in re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", text):
        assert (document.parent / target).exists(), target
    for name in re.findall(r"`((?:engine|repo|image|codec|store|format|kernels|delta|cli)/\w+\.py)`", text):
        assert (ROOT / "deltaimg" / name).exists(), name
