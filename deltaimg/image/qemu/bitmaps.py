# SPDX-License-Identifier: Apache-2.0
"""The persistent dirty bitmaps in a qcow2 file, which no process may have open meanwhile: listed, begun, removed.

A bitmap is stored with its file: any qemu that opens the file to write loads it, and stores it when it closes the file in good
order. One that was not stored so is marked as in use, and says nothing any more.
"""

from __future__ import annotations

import json
import os
from typing import Annotated

import msgspec
from msgspec import Struct

from deltaimg.image.qemu.qemu_img import PROGRAM, QemuImgFailure, run_qemu_img


class _Bitmap(msgspec.Struct, frozen=True):
    name: str
    flags: list[str]


class _Data(msgspec.Struct, frozen=True):
    bitmaps: list[_Bitmap] = []


class _Specific(msgspec.Struct, frozen=True):
    data: _Data = _Data()


class _Info(msgspec.Struct, frozen=True):
    specific: Annotated[_Specific, msgspec.Meta()] = msgspec.field(name="format-specific", default=_Specific())


class FileBitmap(Struct, frozen=True):
    """One bitmap of a file."""

    name: str
    problem: str
    """Why it says nothing, in words that follow its name; empty if it is in order."""


def list_bitmaps(path: str) -> list[FileBitmap]:
    """Return the bitmaps in a qcow2 file; raises QemuImgFailure."""
    said = run_qemu_img("info", "--output=json", _describe(path))
    try:
        found = msgspec.json.decode(said, type=_Info).specific.data.bitmaps
    except msgspec.DecodeError as error:
        raise QemuImgFailure(f"{PROGRAM} describes the file in a way that is not known: {error}") from error
    return [FileBitmap(each.name, _find_problem(each.flags)) for each in found]


def add_bitmap(path: str, name: str) -> None:
    """Begin to record what changes in a qcow2 file, durably; raises QemuImgFailure."""
    run_qemu_img("bitmap", "--add", _describe(path), name)


def remove_bitmap(path: str, name: str) -> None:
    """Remove a bitmap; raises QemuImgFailure."""
    run_qemu_img("bitmap", "--remove", _describe(path), name)


def _find_problem(flags: list[str]) -> str:
    if "in-use" in flags:
        return "was not stored: a qemu that had the file open did not end well"
    return "" if "auto" in flags else "records nothing: another program has disabled it"


def _describe(path: str) -> str:
    """Return a file as qemu-img is to open it: as qcow2, without the files that it lies over."""
    file = {"driver": "file", "filename": os.path.abspath(path)}
    return "json:" + json.dumps({"driver": "qcow2", "file": file, "backing": None})
