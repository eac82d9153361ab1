# SPDX-License-Identifier: Apache-2.0
"""Write the golden files of the present format version. Run once a version, by hand: `python -m tests.golden.make`.

Files that exist are left alone, and the run ends in an error if one would come out otherwise: a golden file that no longer
fits says that the format has changed, and a changed format is a new version, with a folder of its own.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from deltaimg.format.framing import VERSION
from tests.golden.delta_bodies import golden_delta_files
from tests.golden.kinds import KINDS, describe
from tests.golden.refusals import all_refusals
from tests.golden.samples import SAMPLES

FOLDER = Path(__file__).parent / f"v{VERSION}"


def golden_files() -> dict[Path, bytes]:
    """Return what belongs into each file."""
    files = {}
    for kind, cases in SAMPLES.items():
        for case, (object_name, content) in cases.items():
            data = KINDS[kind].build(content)
            says = {"object_name": object_name, "content": describe(KINDS[kind].parse(data, object_name))}
            files[FOLDER / kind / f"{case}.bin"] = data
            files[FOLDER / kind / f"{case}.json"] = _to_json(says)
    expected = {}
    for refusal in all_refusals():
        files[FOLDER / "bad" / f"{refusal.kind}-{refusal.reason}.bin"] = refusal.data
        expected[f"{refusal.kind}-{refusal.reason}"] = {
            "kind": refusal.kind,
            "object_name": refusal.object_name,
            "error": refusal.error,
            "message": refusal.message,
        }
    files[FOLDER / "bad" / "expected.json"] = _to_json(expected)
    return files | golden_delta_files()


def _to_json(value: object) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()


def main() -> int:
    differing = []
    for path, data in golden_files().items():
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        elif path.read_bytes() != data:
            differing.append(path.name)
    print(*(f"{name} would come out otherwise" for name in differing), sep="\n", end="")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
