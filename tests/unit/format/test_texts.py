# SPDX-License-Identifier: Apache-2.0
"""Texts in documents: text from the system is made printable, and unprintable text is refused."""

from __future__ import annotations

import json

import pytest

from deltaimg.errors import Malformed
from deltaimg.format.documents import find_text_problem
from deltaimg.format.limits import MAX_TEXT_CHARACTERS
from deltaimg.text import as_text
from tests.golden import forge
from tests.golden.kinds import KINDS
from tests.golden.refusals import sample
from tests.golden.samples import SAMPLES

ODD = ["\x1b[2J", "a\nb", "\r", "\x07", "\x00", "\x7f", "\x9b1m", "\u202egpj.exe", "\u200b", "\u2028", "\ufeff"]
TEXTS = {"config": "software", "lock": "purpose", "manifest": "source"}


@pytest.mark.parametrize("text", ODD, ids=ascii)
@pytest.mark.parametrize(("kind", "field"), TEXTS.items())
def test_a_text_that_could_lead_a_terminal_astray_is_refused_in_every_kind(kind: str, field: str, text: str) -> None:
    document = json.loads(forge.body_of(sample(kind))) | {field: text}
    data = forge.forge_object(KINDS[kind].kind, json.dumps(document).encode())
    with pytest.raises(Malformed, match="a text of it has characters that are not printable"):
        KINDS[kind].parse(data, next(iter(SAMPLES[kind].values()))[0])


def test_an_error_shows_what_it_refuses_without_a_control_character() -> None:
    document = {"\x1b[2J": 1} | json.loads(forge.body_of(sample("manifest"))) | {"statistics": {"\x1b[2J": "\x1b"}}
    data = forge.forge_object(KINDS["manifest"].kind, json.dumps(document).encode())
    with pytest.raises(Malformed) as caught:
        KINDS["manifest"].parse(data, next(iter(SAMPLES["manifest"].values()))[0])
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "text", [*ODD, "\udcff\udce4", "Büro 夜", "x" * 5000, "\n" * 5000], ids=lambda text: ascii(text)[:20]
)
def test_what_the_system_says_can_stand_in_a_document(text: str) -> None:
    assert find_text_problem(as_text(text)) is None
    assert len(as_text(text)) <= MAX_TEXT_CHARACTERS


def test_printable_text_stays_and_other_is_shown_by_its_number() -> None:
    assert as_text("/srv/Büro 夜.raw") == "/srv/Büro 夜.raw"
    assert as_text("/srv/\udcff\n\x1b.raw") == "/srv/\\xff\\n\\x1b.raw"
