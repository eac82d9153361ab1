# SPDX-License-Identifier: Apache-2.0
"""Objects of every format version, as they were written then: they must mean today what they meant."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deltaimg.errors import DeltaimgError
from deltaimg.format.framing import HEADER_BYTES, VERSION
from deltaimg.format.map import HEAD
from deltaimg.kernels import native, reference_delta
from tests.golden.delta_bodies import DELTA_SAMPLES, read_delta_sample
from tests.golden.kinds import KINDS, describe
from tests.golden.refusals import Refusal, all_refusals
from tests.golden.samples import SAMPLES

FOLDERS = sorted(Path(__file__).parent.glob("v[0-9]*"))
GOOD = [path for folder in FOLDERS for kind in KINDS for path in sorted((folder / kind).glob("*.bin"))]
BAD = [path for folder in FOLDERS for path in sorted((folder / "bad").glob("*.bin"))]
WRITTEN = [(kind, case) for kind, cases in SAMPLES.items() for case in cases]
HERE = Path(__file__).parent / f"v{VERSION}"


def tell(path: Path) -> str:
    return f"{path.parent.parent.name}-{path.parent.name}-{path.stem}"


@pytest.mark.parametrize("path", GOOD, ids=tell)
def test_a_good_object_still_means_what_it_meant(path):
    says = json.loads(path.with_suffix(".json").read_text())
    found = KINDS[path.parent.name].parse(path.read_bytes(), says["object_name"])
    assert describe(found) == says["content"]


@pytest.mark.parametrize("path", BAD, ids=tell)
def test_a_bad_object_is_refused_for_the_reason_that_it_was_made_for(path):
    expected = json.loads((path.parent / "expected.json").read_text())[path.stem]
    with pytest.raises(DeltaimgError) as caught:
        KINDS[expected["kind"]].parse(path.read_bytes(), expected["object_name"])
    assert type(caught.value).__name__ == expected["error"]
    assert expected["message"] in str(caught.value)
    assert expected["object_name"] in str(caught.value)


@pytest.mark.parametrize(("kind", "case"), WRITTEN)
def test_the_writer_still_writes_the_same_bytes(kind, case):
    golden = (HERE / kind / f"{case}.bin").read_bytes()
    written = KINDS[kind].build(SAMPLES[kind][case][1])
    if kind == "map":
        # Another release of zstd may pack the columns otherwise: compare what comes before them, then the meaning.
        name, content = SAMPLES[kind][case]
        ids_start, ids_end = HEADER_BYTES + HEAD.size, HEADER_BYTES + HEAD.size + 16 * len(content.record_ids)
        packed_bytes_at = ids_start - 4
        assert written[HEADER_BYTES:packed_bytes_at] == golden[HEADER_BYTES:packed_bytes_at]
        assert written[ids_start:ids_end] == golden[ids_start:ids_end]
        assert describe(KINDS[kind].parse(written, name)) == describe(KINDS[kind].parse(golden, name))
    else:
        assert written == golden


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_good_and_bad_golden_objects(kind):
    assert any(path.parent.name == kind for path in GOOD)
    assert sum(path.stem.startswith(f"{kind}-") for path in BAD) >= 6


@pytest.mark.parametrize("refusal", all_refusals(), ids=lambda each: f"{each.kind}-{each.reason}")
def test_every_reason_to_refuse_is_on_file(refusal: Refusal):
    assert (HERE / "bad" / f"{refusal.kind}-{refusal.reason}.bin").read_bytes() == refusal.data


def test_no_golden_file_is_left_over():
    expected = json.loads((HERE / "bad" / "expected.json").read_text())
    assert {path.stem for path in BAD if path.parent.parent == HERE} == set(expected)


@pytest.mark.parametrize("kernels", [native, reference_delta], ids=["native", "reference"])
@pytest.mark.parametrize("name", DELTA_SAMPLES)
def test_a_delta_body_still_makes_what_it_made(name, kernels):
    sample = read_delta_sample(name)
    out = bytearray(len(sample.content))
    kernels.decode_delta(sample.body, sample.sources, memoryview(out))
    assert out == sample.content


@pytest.mark.parametrize("name", DELTA_SAMPLES)
def test_the_delta_samples_are_on_file(name):
    assert read_delta_sample(name) == DELTA_SAMPLES[name]
