# SPDX-License-Identifier: Apache-2.0
"""Parity of packs that a sync copies comes with them."""

from __future__ import annotations

import pytest

from deltaimg.engine.parity.add import add_parity
from deltaimg.engine.parity.protection import survey_parity
from tests.support.clock import FixedClock
from tests.support.repositories import count_stored_bytes
from tests.support.sync import make_family, make_like, names_of, run_sync


def test_parity_comes_with_the_packs_that_it_protects():
    pytest.importorskip("pyeclib")
    family = make_family(3, ("vm1", "vm2"))
    add_parity(family.source, 10, clock=FixedClock())
    destination = make_like(family.source)
    run_sync(family.source, destination, ignores_parity=True)
    assert not names_of(destination, "parity/")
    destination = make_like(family.source)
    assert run_sync(family.source, destination).stored_bytes == count_stored_bytes(destination) - len(
        destination.objects.get_bytes("config")
    )
    assert names_of(destination, "parity/") == names_of(family.source, "parity/")
    survey = survey_parity(destination)
    assert survey.unprotected_packs == 0
    assert not survey.lost
    family.assert_whole(destination, 6)
    partial = make_like(family.source)
    run_sync(family.source, partial, images=("vm1",))
    assert not names_of(partial, "parity/")
    run_sync(family.source, partial, images=("vm2",))
    assert names_of(partial, "parity/") == names_of(family.source, "parity/")
