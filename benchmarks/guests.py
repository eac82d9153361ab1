#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Build real guests for the benchmarks: one command, resumable, root needed.

    python benchmarks/guests.py --work DIR [ext4|xfs|mariadb|release|all]

Writes  `DIR/NAME-night0.raw` and on, sparse images at rest, and `DIR/guests.json` saying what they hold; of the database
        guest's later days only `NAME-nightN.changes`.
Disk    about 15 GiB for ext4 and for xfs, 7 GiB for mariadb, 4 GiB for release.
Always  runs in mount and process namespaces of its own: nothing stays mounted or running, whatever happens.
        What can be seeded is seeded; package versions are those that the machine's apt offers on the day.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import time
from pathlib import Path

from guest.changes import apply_changes, write_changes
from guest.days import DAYS_OF, MORE_DAYS, Context, Day
from guest.machine import AptSources, apt_options, apt_sources, run
from guest.mounted import Guest, alive, mounted
from guest.recipes import RECIPES, Recipe

_MARK = "DIMG_GUESTS_INSIDE"
_TOOLS = {
    "mmdebstrap": ["mmdebstrap", "--version"],
    "mkfs.ext4": ["sh", "-c", "mkfs.ext4 -V 2>&1 | head -1"],
    "mkfs.xfs": ["mkfs.xfs", "-V"],
}
_NEEDED = {"mmdebstrap": "mmdebstrap", "mkfs.ext4": "e2fsprogs", "mkfs.xfs": "xfsprogs", "fstrim": "util-linux"}


def enter_namespaces() -> None:
    """Start again inside namespaces of our own, where mounts and processes end with us."""
    if os.environ.get(_MARK):
        return
    if os.geteuid() != 0:
        sys.exit("guests.py: building guests needs root (loop mounts, chroot)")
    options = ["--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc"]
    os.environ[_MARK] = "1"
    os.execvp("unshare", ["unshare", *options, sys.executable, *sys.argv])


def install_tools() -> None:
    """Install what is missing, by apt."""
    missing = sorted({package for command, package in _NEEDED.items() if shutil.which(command) is None})
    if missing:
        say(f"installing {' '.join(missing)}")
        run(["apt-get", "-qy", "--no-install-recommends", "install", *missing])


def build(recipe: Recipe, work: Path) -> None:
    """Build the images of one guest's days that are not there yet, each from that of the day before."""
    sources = apt_sources()
    for number, day in enumerate(DAYS_OF[recipe.name]):
        target = image_path(work, recipe.name, number)
        if target.exists():
            continue
        say(f"{recipe.name} day {number} ({day.name}): {day.story}")
        started = time.monotonic()
        growing = work / f"{recipe.name}-growing.raw"
        if day.is_fresh_install:
            install_root(recipe, sources.codename, sources.release + sources.updates * day.has_updates, growing)
        else:
            copy_sparse(image_path(work, recipe.name, number - 1), growing)
        live_through(day, Context(recipe, sources, number), growing)
        growing.rename(target)
        if growing.with_suffix(".packages").exists():
            growing.with_suffix(".packages").rename(target.with_suffix(".packages"))
        seconds = round(time.monotonic() - started, 1)
        note_day(work, recipe, number, seconds)
        say(f"{recipe.name} day {number} done in {seconds} s, {target.stat().st_blocks * 512 >> 20} MiB")
    build_more(recipe, sources, work)


def build_more(recipe: Recipe, sources: AptSources, work: Path) -> None:
    """Go on from the last day whose image is kept whole; of these days only what each changed is kept."""
    first = len(DAYS_OF[recipe.name])
    days = MORE_DAYS.get(recipe.name, ())
    targets = [changes_path(work, recipe.name, first + place) for place in range(len(days))]
    if all(target.exists() for target in targets):
        return
    before, growing = work / f"{recipe.name}-before.raw", work / f"{recipe.name}-growing.raw"
    copy_sparse(image_path(work, recipe.name, first - 1), before)
    for number, (day, target) in enumerate(zip(days, targets, strict=True), first):
        if target.exists():
            apply_changes(target, before)
            continue
        copy_sparse(before, growing)
        live_through(day, Context(recipe, sources, number), growing)
        blocks = write_changes(before, growing, target)
        growing.rename(before)
        say(f"{recipe.name} day {number} ({day.name}): {blocks >> 8} MiB changed, kept in {target.name}")
    before.unlink()
    growing.with_suffix(".packages").unlink(missing_ok=True)


def install_root(recipe: Recipe, codename: str, sources: str, image: Path) -> None:
    """Make the file system and install the guest's packages from these sources."""
    image.unlink(missing_ok=True)
    with image.open("wb") as file:
        file.truncate(recipe.image_bytes)
    run([*recipe.mkfs, str(image)])
    listed = image.with_suffix(".sources")
    listed.write_text(sources)
    skipped = ["check/empty", "cleanup/apt/lists", *(["cleanup/apt/cache"] if recipe.keeps_package_cache else [])]
    with mounted(image, image.with_suffix(".root")) as guest:
        run([
            "mmdebstrap", "--variant=important", "--mode=root", f"--include={','.join(recipe.packages)}",
            f"--skip={','.join(skipped)}", *apt_options(), codename, str(guest.root), str(listed),
        ])  # fmt: skip
    listed.unlink()


def live_through(day: Day, context: Context, image: Path) -> None:
    """Mount the image, let the day happen, leave the image at rest."""
    with mounted(image, image.with_suffix(".root")) as guest:
        if day.name == "quiet":
            return
        with alive(guest):
            day.change(guest, context)
        guest.trim()
        note_packages(image, guest)


def note_packages(image: Path, guest: Guest) -> None:
    """Keep the guest's package versions beside its image."""
    image.with_suffix(".packages").write_text(guest.run("dpkg-query", "-W", "-f", "${Package} ${Version}\n"))


def packages_of(image: Path) -> set[str]:
    """The lines that `note_packages` wrote; a quiet day writes none and has those of the day before."""
    number = int(image.stem[-1])
    while number and not image.with_suffix(".packages").exists():
        number -= 1
        image = image.with_stem(f"{image.stem[:-1]}{number}")
    listed = image.with_suffix(".packages")
    return set(listed.read_text().splitlines()) if listed.exists() else set()


def note_day(work: Path, recipe: Recipe, number: int, seconds: float) -> None:
    """Write one day into guests.json."""
    path = work / "guests.json"
    noted = json.loads(path.read_text()) if path.exists() else {}
    image, day = image_path(work, recipe.name, number), DAYS_OF[recipe.name][number]
    packages, before = packages_of(image), packages_of(image_path(work, recipe.name, max(number - 1, 0)))
    stat = image.stat()
    guest = noted.setdefault("guests", {}).setdefault(recipe.name, {"nights": []})
    guest["nights"] = [noted for noted in guest["nights"] if noted["night"] < number]
    guest["nights"].append({
        "night": number, "name": day.name, "story": day.story,
        "apparent_bytes": stat.st_size, "allocated_bytes": stat.st_blocks * 512, "build_s": seconds,
        "packages": len(packages), "packages_changed": len(packages - before),
    })  # fmt: skip
    guest["versions"] = dict(sorted(line.split() for line in packages))
    noted["kernel"] = platform.release()
    noted["tools"] = {name: run(command).strip() for name, command in _TOOLS.items()}
    path.write_text(json.dumps(noted, indent=1) + "\n")


def copy_sparse(source: Path, target: Path) -> None:
    """Copy an image, sharing its blocks where the file system can."""
    run(["cp", "--sparse=always", "--reflink=auto", str(source), str(target)])


def image_path(work: Path, name: str, number: int) -> Path:
    """Where a day's image lies."""
    return work / f"{name}-night{number}.raw"


def changes_path(work: Path, name: str, number: int) -> Path:
    """Where what a day changed lies."""
    return work / f"{name}-night{number}.changes"


def say(text: str) -> None:
    """Tell the user at once."""
    print(f"guests: {text}", flush=True)


def main() -> None:
    """Parse the command line and build."""
    parser = argparse.ArgumentParser(description="Build the benchmarks' guests.")
    parser.add_argument("guest", nargs="?", default="all", choices=[*RECIPES, "all"])
    parser.add_argument("--work", type=Path, default=Path("work-benchmarks"), help="where images are kept")
    arguments = parser.parse_args()
    enter_namespaces()
    work = arguments.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    install_tools()
    for recipe in RECIPES.values():
        if arguments.guest in (recipe.name, "all"):
            build(recipe, work)


if __name__ == "__main__":
    main()
