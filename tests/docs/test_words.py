# SPDX-License-Identifier: Apache-2.0
"""Words that were given up for the field's own: none of them is in code or documents, whoever writes there next.

Help is searched as well: docs/cli.md has the help of every command, as another test checks.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SEARCHED = ("deltaimg", "native", "tests", "benchmarks", "docs", "scripts", "README.md", "CHANGELOG.md")
SUFFIXES = {"", ".py", ".md", ".c", ".h", ".sh", ".txt"}


@dataclass(frozen=True, slots=True)
class GivenUp:
    """A word, what to write instead, and the sentences in which it has its ordinary meaning."""

    pattern: str
    instead: str
    exceptions: tuple[str, ...] = ()
    """Regular expressions of what is removed from a line before it is searched; each has its reason beside it."""
    skipped: tuple[str, ...] = ()
    """Files and folders that are not searched for it."""


WORDS = (
    GivenUp(
        r"(?i)\b(to)?nights?\b",
        "backup, run, this backup, the previous snapshot",
        (
            r"(?i)a night's cron job|What cron does at night",  # a schedule
            r"""["']nights?["']|-night\{|deep-nights""",  # how committed results and the images beside them name it
        ),
        ("benchmarks/results", "docs/benchmarks.md"),  # what was measured, as the row and the option were called
    ),
    GivenUp(
        r"(?i)\bst(and|ands|anding|ood) (on|upon) (one another|each other|other|its|their|a source|source)",
        "depends on",
    ),
    GivenUp(
        r"(?i)\bst(and|ands|anding|ood) (alone|deep|deeper|deepest)\b", "is self-contained, is a literal; delta depth"
    ),
    GivenUp(r"(?i)\banew\b", "again, re-encoded, rewritten", skipped=("docs/benchmarks.md",)),  # from a result
    GivenUp(
        r"(?i)\b(un)?prov(e|es|ed|en|ing|er|ers)\b|\bproofs?\b",
        "verify, verified; reachable and unreachable",
        (r"(?i)proof of concept",),  # a term
    ),
    GivenUp(r"(?i)\b(ma(ke|kes|de|king)) (\w+ ){0,3}good (by|from|again)\b|\bmade good\b", "repair, recover"),
    GivenUp(r"(?i)\bmake good\b|\bwhole again\b|\bmend(s|ed|ing)?\b", "repair, repaired, recovered"),
    GivenUp(r"(?i)\b(put|puts|putting)[ _]aside\b", "quarantine, quarantined"),
    GivenUp(r"(?i)\bcondemn(s|ed)?\b|\bpardon(s|ed)?\b", "pending deletion, unmarked"),
    GivenUp(r"(?i)\bbe had\b|\b(at|to) hand\b|\binto view\b", "available, loaded, visible"),
    GivenUp(r"(?i)\b(took|takes?|taken) .{0,30}for dead\b", "considered dead"),
    GivenUp(r"(?i)\bbad day\b|\bkeeping house\b|\bevery night\b", "Recovery, Maintenance, Backup"),
    GivenUp(r"(?i)\brelatives\b|\brelative images?\b", "similar images"),
    GivenUp(r"\b(SeenImage|DeltaJudge|SlotPlaces|FreedGroup|RecordProver)\b", "a name that says what it holds"),
    GivenUp(r"(?i)\bno objection\b", "accepts"),
    GivenUp(
        r"(?i)\b(some|no|any|every)body('s)?\b",
        "another process, no run, a user: who is meant",
        skipped=("tests", "benchmarks"),
    ),
    GivenUp(
        r"(?i)\bbelieves?\b|\btold\b",
        "assumes, holds; given, known",
        skipped=("tests", "benchmarks"),
    ),
    GivenUp(r"(?i)\blearnt\b", "loaded, known"),
    GivenUp(r"(?i)\bhold(s|ing)? .{0,40}\bagainst (its|their|the|what)\b|\bheld against\b", "compare with"),
    GivenUp(r"(?i)\blie(s)? behind\b", "follows"),
)

RIDDLES = (
    "relatives",
    "seen",
    "judge",
    "places",
    "freed",
    "prove",
    "prover",
    "own",
    "condemned",
    "nameless",
    "explain",
)
"""What no module is called, and no class: such a name says nothing of what it holds."""


def list_files() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", *SEARCHED], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    own = Path(__file__).resolve()  # the words themselves
    paths = [ROOT / name for name in listed if Path(name).suffix in SUFFIXES]
    return [path for path in paths if path.is_file() and path.resolve() != own]


@pytest.mark.parametrize("word", WORDS, ids=lambda word: word.instead)
def test_words_that_were_given_up_are_not_used(word: GivenUp) -> None:
    found = []
    for path in list_files():
        name = str(path.relative_to(ROOT))
        if name.startswith(word.skipped):
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            for exception in word.exceptions:
                line = re.sub(exception, "", line)
            if re.search(word.pattern, line):
                found.append(f"{name}:{number}: {line.strip()[:160]}")
    assert not found, f"write {word.instead!r} in:\n" + "\n".join(found)


def test_modules_and_classes_are_named_for_what_they_hold() -> None:
    names = {path.stem: path for path in list_files() if path.suffix == ".py"}
    assert not [str(names[riddle]) for riddle in RIDDLES if riddle in names]
    classes = {
        match[1].lower(): path
        for path in list_files()
        if path.suffix == ".py"
        for match in re.finditer(r"^class _?(\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert not [f"{classes[riddle]}: {riddle}" for riddle in RIDDLES if riddle in classes]


def test_the_patterns_find_what_they_are_for() -> None:
    lines = (
        "one night of one image", "tonight's blocks", "deltas that stand on one another", "a record stands alone", "made anew",
        "proven by their ids", "packs made good by parity", "whole again", "put_aside(name)", "condemned", "is to be had",
        "took this run for dead", "keeping house", "relatives", "DeltaJudge", "has no objection", "anchors were learnt",
        "held against its name", "what lies behind the end",
        "harms nobody", "code believes", "a plan was told",
    )  # fmt: skip
    unfound = [line for line in lines if not any(re.search(word.pattern, line) for word in WORDS)]
    assert not unfound
