# SPDX-License-Identifier: Apache-2.0
"""A reader of delta bodies, made from docs/format.md, "Delta body", alone. It imports nothing of ours."""

from __future__ import annotations


class _Octets:
    def __init__(self, octets: bytes) -> None:
        self.octets, self.at = octets, 0

    def take(self, count: int) -> bytes:
        if count > len(self.octets) - self.at:
            raise ValueError("ends too early")
        self.at += count
        return self.octets[self.at - count : self.at]

    def varint(self) -> int:
        number = 0
        for place in range(4):
            byte = self.take(1)[0]
            number += (byte % 128) << 7 * place
            if byte < 128:
                return number
        raise ValueError("a varint of more than four bytes")

    def is_used_up(self) -> bool:
        return self.at == len(self.octets)


def read_delta_body(body: bytes, sources: bytes, content_bytes: int) -> tuple[bytes, set[str]]:
    """Return the content, and which rules of the document it took to make it; raises ValueError for what is to be refused."""
    if len(body) > 2 * content_bytes + 1024 or len(sources) + content_bytes > 2**25:
        raise ValueError("too long")
    whole = _Octets(body)
    flags = whole.take(1)[0]
    operation_bytes, place_count, single_count, short_count = (whole.varint() for _ in range(4))
    operations = _Octets(whole.take(operation_bytes))
    width = 3 if len(sources) + content_bytes <= 2**23 else 4
    planes = [whole.take(place_count) for _ in range(width)]
    places = [sum(plane[i] << 8 * k for k, plane in enumerate(planes)) for i in range(place_count)]
    singles, shorts = _Octets(whole.take(single_count)), _Octets(whole.take(short_count))
    longs = _Octets(whole.take(len(body) - whole.at))
    if flags > 3:
        raise ValueError("unknown flags")

    made, start, end = bytearray(sources), len(sources), len(sources) + content_bytes
    latest, source_end, rules = [1, 2, 4], 0, set()
    while not operations.is_used_up():
        position = len(made)
        token = operations.take(1)[0]
        kind, added = token % 8, token // 8
        if added == 31:
            added += operations.varint()
            rules.add("more")
        length = operations.varint()
        if length == 0 or position + added + length > end:
            raise ValueError("makes nothing, or too much")
        to = position + added
        if kind > 4:
            raise ValueError("unknown kind")
        if kind > 2:
            if not places:
                raise ValueError("places end too early")
            place = places.pop(0)
            distance = place if kind == 3 else to - (source_end + (-(place + 1) // 2 if place % 2 else place // 2))
            del latest[2]
        else:
            distance = latest.pop(kind)
        latest.insert(0, distance)
        copied_from = to - distance
        if distance <= 0 or copied_from < 0 or kind == (3 if copied_from < start else 4):
            raise ValueError("copies from where it may not")
        if copied_from < start < copied_from + length:
            raise ValueError("passes the end of the sources")

        first_base = position - distance
        if 1 <= added <= 32 and first_base >= 0 and (first_base >= start or first_base + added <= start):
            name, stream, bit = ("singles", singles, 1) if added == 1 else ("shorts", shorts, 2)
            rules |= {name, f"{name} {'differ' if flags & bit else 'plain'}"}
            for byte in stream.take(added):
                made.append((byte + made[len(made) - distance]) % 256 if flags & bit else byte)
        else:
            rules |= {"longs"} if added > 32 else {"few without a base"} if added else set()
            made += longs.take(added)
        for _ in range(length):
            made.append(made[len(made) - distance])
        rules |= {f"kind {kind}"} | ({"repeats itself"} if distance < length and copied_from >= start else set())
        if copied_from < start:
            source_end = copied_from + length
    if places or not singles.is_used_up() or not shorts.is_used_up():
        raise ValueError("a stream is not used up")
    if len(longs.octets) - longs.at != end - len(made):
        raise ValueError("ends too early or too late")
    return bytes(made[start:] + longs.take(end - len(made))), rules
