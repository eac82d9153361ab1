# SPDX-License-Identifier: Apache-2.0
"""Which snapshots a sync copies, and in which order."""

from __future__ import annotations

from datetime import timedelta

import pytest

from deltaimg.engine.sync.request import SyncRequest
from deltaimg.engine.sync.run import plan_sync
from deltaimg.errors import SnapshotNotFound
from deltaimg.options.keep import Policy, Span
from deltaimg.options.sync import SyncOptions
from tests.support.clock import START, FixedClock
from tests.support.images import make_mixed_image
from tests.support.sync import make_family, make_like, run_sync, watch_calls


def test_snapshots_are_chosen_by_image_tag_time_and_policy():
    family = make_family(4, ("vm1", "vm2"))
    image = make_mixed_image(600_000)
    family.clock.advance(days=1)
    family.back_up(image, "vm1", tags=("release", "weekly"))
    family.back_up(image, "vm1", tags=("weekly",))

    def choose(policy: Policy | None = None, **options: object) -> list[str]:
        request = SyncRequest(
            family.source,
            make_like(family.source),
            SyncOptions(**options),
            policy or Policy(),
            clock=FixedClock(START + timedelta(days=20)),
        )
        return [ref.image for ref in plan_sync(request).snapshots]

    assert choose() == ["vm1"] * 6 + ["vm2"] * 4
    assert choose(images=("vm2",)) == ["vm2"] * 4
    assert choose(with_tags=("weekly",)) == ["vm1"] * 2
    assert choose(with_tags=("weekly", "release")) == ["vm1"]
    assert choose(since=START + timedelta(days=7, hours=1)) == ["vm1"] * 2 + ["vm2"]
    assert choose(since=Span(days=10)) == ["vm1"] * 2
    assert choose(snapshots=("vm2~1", "vm1@latest", "vm1")) == ["vm1", "vm2"]
    assert choose(Policy(last=2)) == ["vm1"] * 2 + ["vm2"] * 2
    assert choose(Policy(last=1), images=("vm1",), with_tags=("release",)) == []


def test_an_image_that_the_source_does_not_have_is_an_error():
    family = make_family(1)
    with pytest.raises(SnapshotNotFound) as caught:
        run_sync(family.source, make_like(family.source), images=("vm7",))
    assert "vm1" in str(caught.value.hint)


@pytest.mark.parametrize("newest_first", [False, True])
def test_the_order_is_oldest_first_or_the_newest_of_each_image_before_all_others(newest_first):
    family = make_family(3, ("vm1", "vm2"))
    destination = watch_calls(make_like(family.source))
    run_sync(family.source, destination, newest_first=newest_first)
    done = [call.split("/", 1)[1] for call in destination.objects.store.calls if call.startswith("put snapshots/")]
    listed = [ref.object_name.split("/", 1)[1] for ref in family.source.list_snapshots()]
    expected = [listed[place] for place in (5, 2, 4, 3, 1, 0)] if newest_first else listed
    assert done == expected
    family.assert_whole(destination, 6)
