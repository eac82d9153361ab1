# SPDX-License-Identifier: Apache-2.0
"""Change paths in a guest's configuration, and nothing else: comments, order and what is not known here stay as they are."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from xml.sax.saxutils import escape

from deltaimg.image.rbd.address import SCHEME, is_rbd_address

_AROUND = r"[\w./+@%-]"
"""What a path may go on with: one that is followed by it, or follows it, is another path."""


def move_path(path: str, moves: Mapping[str, str]) -> str:
    """Return where a path is after some moves, of which the longest that fits counts: of itself, or of a folder above it."""
    fitting = [old for old in moves if path == old or path.startswith(old.rstrip("/") + "/")]
    if not fitting:
        return path
    old = max(fitting, key=len)
    if path == old:
        return moves[old]
    return moves[old].rstrip("/") + path.removeprefix(old.rstrip("/"))


def rewrite_paths(config: bytes, paths: Mapping[str, str]) -> bytes:
    """Return a configuration with whole paths replaced: XML, JSON, or text as xl reads it, in which they are quoted alike.

    XML names an image of Ceph without `rbd:`. One that became a file stays as it is: more than its name would have to change.
    """
    text = config.decode()
    start = text.lstrip()[:1]
    quote = escape if start == "<" else _quote_json if start in ("[", "{") else str
    moved = {old: new for old, new in paths.items() if old and old != new}
    if start == "<":
        in_ceph = {old: new for old, new in moved.items() if is_rbd_address(old)}
        moved = {old: new for old, new in moved.items() if old not in in_ceph}
        moved |= {old[len(SCHEME) :]: new[len(SCHEME) :] for old, new in in_ceph.items() if is_rbd_address(new)}
    quoted = {quote(old): quote(new) for old, new in moved.items()}
    if not quoted:
        return config
    anything = "|".join(re.escape(old) for old in sorted(quoted, key=len, reverse=True))
    return re.sub(f"(?<!{_AROUND})(?:{anything})(?!{_AROUND})", lambda match: quoted[match[0]], text).encode()


def _quote_json(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]
