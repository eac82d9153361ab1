# SPDX-License-Identifier: Apache-2.0
"""What a format of signatures and deltas promises."""

from __future__ import annotations

from typing import ClassVar, Protocol

from msgspec import Struct

from deltaimg.engine.files.streams import Input, Output
from deltaimg.engine.progress import Progress
from deltaimg.image.source import ImageSource
from deltaimg.image.target import ImageTarget


class SignatureResult(Struct, frozen=True):
    """What was signed: bytes of the image, of its blocks, and of the signature."""

    image_bytes: int
    block_bytes: int
    signature_bytes: int


class DeltaResult(Struct, frozen=True):
    """What the new file is made of, in bytes; `literal_bytes` are those that the delta brings, before compression."""

    image_bytes: int
    copied_bytes: int
    zero_bytes: int
    literal_bytes: int
    delta_bytes: int


class PatchResult(Struct, frozen=True):
    """What was written, in bytes, and whether it was verified by a digest of the whole."""

    image_bytes: int
    copied_bytes: int
    zero_bytes: int
    literal_bytes: int
    is_verified: bool


class PatchFormat(Protocol):
    """What all formats do. All methods may raise ImageError for the files, IntegrityError or UnsupportedFormat for what they
    read.
    """

    name: ClassVar[str]
    summary: ClassVar[str]

    def patch(self, old: ImageSource, delta: Input, target: ImageTarget, *, progress: Progress) -> PatchResult:
        """Write the new file to `target`, and leave it to the caller to commit it. WrongOldFile: `old` is not that file."""
        ...


class DirectFormat(PatchFormat, Protocol):
    """Compares the files themselves."""

    def compare(self, old: ImageSource, new: ImageSource, delta: Output, *, progress: Progress) -> DeltaResult:
        """Write what makes `new` of `old`."""
        ...


class SignatureFormat(PatchFormat, Protocol):
    """Compares a file with the signature of another."""

    def sign(
        self, old: ImageSource, signature: Output, *, block_bytes: int | None, progress: Progress
    ) -> SignatureResult:
        """Write the signature of `old`; blocks of a size that fits the image, where none is given. UsageError: a bad size."""
        ...

    def make_delta(self, signature: Input, new: ImageSource, delta: Output, *, progress: Progress) -> DeltaResult:
        """Write what makes `new` of the file that `signature` is of."""
        ...
