# SPDX-License-Identifier: Apache-2.0
"""Entity tags: what they should be, and when a tag that is another one says that an object is damaged."""

from __future__ import annotations

from hashlib import md5

from deltaimg.store.entity_tags import EntityTags

CONTENT = bytes(range(250)) * 4


def make_tags(**objects: bool) -> EntityTags:
    """Return tags of objects, each sent in parts or not."""
    tags = EntityTags(300)
    for name, has_parts in objects.items():
        tags.note(name, [name.encode(), CONTENT[:700], b"", memoryview(CONTENT)[700:]], has_parts=has_parts)
    return tags


def tag_of(name: str, *, has_parts: bool) -> str:
    content = name.encode() + CONTENT
    if not has_parts:
        return md5(content).hexdigest()
    parts = [md5(content[start : start + 300]).digest() for start in range(0, len(content), 300)]
    return f"{md5(b''.join(parts)).hexdigest()}-{len(parts)}"


def test_the_tag_of_what_was_sent_verifies_it_whatever_its_pieces_were() -> None:
    told = {"a": f'"{tag_of("a", has_parts=False)}"', "b": tag_of("b", has_parts=True).upper()}
    assert make_tags(a=False, b=True).compare(told) == {"a": True, "b": True}


def test_another_tag_counts_where_tags_of_its_kind_are_digests() -> None:
    tags = make_tags(a=False, b=False, c=True, d=True)
    told = {"a": tag_of("a", has_parts=False), "b": "0" * 32, "c": f"{'0' * 32}-4", "d": "0x8D4B"}
    assert tags.compare(told) == {"a": True, "b": False}
    assert tags.compare({**told, "d": tag_of("d", has_parts=True)}) == {"a": True, "b": False, "c": False, "d": True}


def test_what_was_not_sent_by_this_process_or_has_no_tag_is_unknown() -> None:
    assert make_tags(a=False).compare({"a": "", "other": "0" * 32}) == {}


def test_the_last_part_may_be_whole() -> None:
    tags = EntityTags(4)
    tags.note("x", [b"abcdefgh"], has_parts=True)
    expected = md5(md5(b"abcd").digest() + md5(b"efgh").digest()).hexdigest()
    assert tags.compare({"x": f"{expected}-2"}) == {"x": True}
