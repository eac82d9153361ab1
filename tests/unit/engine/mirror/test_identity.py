# SPDX-License-Identifier: Apache-2.0
"""An image is known by the numbers of its kernel, and by these on no other one."""

from __future__ import annotations

from pathlib import Path

import msgspec.structs
import pytest

from deltaimg.engine.mirror.identity import identify_image, refuse_image
from deltaimg.errors import UsageError


def test_only_numbers_of_the_same_boot_are_compared(tmp_path: Path) -> None:
    image, other = tmp_path / "image", tmp_path / "other"
    for each in (image, other):
        each.write_bytes(b"x")
    (tmp_path / "same").hardlink_to(image)
    found = identify_image(str(image))
    assert found is not None
    with pytest.raises(UsageError, match="is the image itself"):
        refuse_image(str(tmp_path / "same"), found)
    refuse_image(str(other), found)
    refuse_image(str(tmp_path / "none"), found)
    for boot_id in ("", "0f0f0f0f-0000-4000-8000-000000000000"):
        refuse_image(str(image), msgspec.structs.replace(found, boot_id=boot_id))


def test_what_is_no_file_here_has_no_numbers() -> None:
    assert identify_image("nbd://host/export") is None
    refuse_image("/nowhere", None)
