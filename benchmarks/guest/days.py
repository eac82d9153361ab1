# SPDX-License-Identifier: Apache-2.0
"""What happens in a guest on each of its days. Every function changes one mounted, living guest.

Source  the table of days in `docs/benchmarks.md`; a day's number is its place in `DAYS_OF` its guest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from guest.content import ContentMaker
from guest.databases import Database
from guest.machine import AptSources, CommandError
from guest.mounted import Guest
from guest.recipes import Recipe

_DOCUMENTS = 400
_UPDATES_FILE = "/etc/apt/sources.list.d/updates.sources"


@dataclass(frozen=True, slots=True)
class Context:
    """What a day may draw on."""

    recipe: Recipe
    sources: AptSources
    day: int

    @property
    def seed(self) -> int:
        """A seed of its own for each guest and day."""
        return self.recipe.seed * 1000 + self.day

    @property
    def database(self) -> Database:
        """The guest's database; days that need one are only lived by guests that have one."""
        if self.recipe.database is None:
            raise CommandError(f"the guest {self.recipe.name} has no database")
        return self.recipe.database


@dataclass(frozen=True, slots=True)
class Day:
    """A day's name, what it is, and what it does; one that `is_fresh_install` starts from an empty image."""

    name: str
    story: str
    change: Callable[[Guest, Context], None]
    is_fresh_install: bool = False
    has_updates: bool = False


def first_fill(guest: Guest, context: Context) -> None:
    """The base: database loaded and used, documents, mails, two logs."""
    maker = ContentMaker(context.seed)
    context.database.load(guest, seed=context.seed)
    context.database.work(guest, transactions=4_000, seed=context.seed)
    for number in range(_DOCUMENTS):
        guest.write(f"/home/user/documents/{number % 20:02}/text{number}.txt", maker.prose(20_000 + 97 * number))
    for number in range(40):
        guest.write(f"/home/user/pictures/photo{number}.jpg", maker.media(900_000 + 7_001 * number))
    _mails(guest, maker, count=1_200, day=0)
    guest.write("/var/log/syslog.1", maker.log_lines(120_000, day=-1))
    guest.write("/var/log/syslog", maker.log_lines(60_000, day=0))
    _maintain(guest)


def ordinary_day(guest: Guest, context: Context) -> None:
    """Database work, logs, mails, edited documents, apt-get update, man-db and plocate."""
    _day(guest, context, transactions=12_000)
    guest.run("apt-get", "-q", "update")
    _maintain(guest)


def upgrade(guest: Guest, context: Context) -> None:
    """Security and updates suites enabled, everything upgraded, the kernel among it; a light day besides.

    The package cache is emptied first, as the weekly cron job does, and filled again by the upgrade.
    """
    guest.run("apt-get", "clean")
    guest.write(_UPDATES_FILE, context.sources.updates)
    guest.run("apt-get", "-q", "update")
    guest.run("apt-get", "-qy", "-o", "Dpkg::Options::=--force-confold", "dist-upgrade")
    _drop_packages(guest, context)
    _day(guest, context, transactions=1_000)
    _maintain(guest)


def nothing(guest: Guest, context: Context) -> None:
    """The guest is only mounted and unmounted."""


def move_and_repack(guest: Guest, context: Context) -> None:
    """Trees moved and copied elsewhere, a tree packed with tar, tables rewritten, logs compressed."""
    guest.shell("""
        mkdir -p /srv/archive/2026
        mv /home/user/documents /srv/archive/2026/documents
        cp -a /home/user/pictures /srv/archive/2026/pictures && rm -r /home/user/pictures
        tar -cf /srv/archive/share.tar -C /usr/share doc man perl
        gzip -9 /var/log/syslog.1 && mv /var/log/syslog.1.gz /var/log/syslog.2.gz
        mv /var/log/syslog /var/log/syslog.1 && touch /var/log/syslog
    """)
    context.database.repack(guest)
    _day(guest, context, transactions=1_000)


def much_new_data(guest: Guest, context: Context) -> None:
    """120 MB that does not compress, and about as much that does: new packages and text."""
    maker = ContentMaker(context.seed + 500)
    for number in range(12):
        guest.write(f"/srv/media/film{number}.mkv", maker.media(10_000_000))
    for number in range(6):
        guest.write(f"/srv/export/table{number}.csv", maker.log_lines(60_000, day=number))
    guest.run("apt-get", "-qy", "--no-install-recommends", "install", *context.recipe.packages_later)
    _drop_packages(guest, context)
    _day(guest, context, transactions=1_000)


def database_day(guest: Guest, context: Context) -> None:
    """Rows updated in place all over the tables, logs, mails, edited documents; no package changes."""
    _day(guest, context, transactions=8_000)


def as_installed(guest: Guest, context: Context) -> None:
    """Nobody has used this guest."""


_QUIET = Day("quiet", "mounted and unmounted, nothing else", nothing)
_BASE = Day("base", "the guest as installed and first used", first_fill, is_fresh_install=True)
_DATABASE_DAY = Day("ordinary", "a day's work: rows updated in place, logs, mails, documents", database_day)
_SERVER = (
    _BASE,
    Day("ordinary", "a day's work: database, logs, mails, documents, package lists", ordinary_day),
    Day("upgrade", "updates and security suites enabled, all packages upgraded", upgrade),
    _QUIET,
    Day("repack", "trees moved, a tar made, tables rewritten, logs compressed", move_and_repack),
    Day("new-data", "half incompressible, half new packages and text", much_new_data),
)
DAYS_OF: dict[str, tuple[Day, ...]] = {
    "ext4": _SERVER,
    "xfs": _SERVER,
    "mariadb": (_BASE, _DATABASE_DAY, _QUIET),
    "release": (
        Day("base", "the release as it was published", as_installed, is_fresh_install=True),
        Day("release", "the same packages, made from the updates and security suites as well", as_installed,
              is_fresh_install=True, has_updates=True),
    ),
}  # fmt: skip

# Days after those, of which only the changes are kept (`guest/changes.py`): 30 ordinary days in all.
MORE_DAYS = {"mariadb": (_DATABASE_DAY,) * 29}


def rows_of(guest: str) -> tuple[str, ...]:
    """The row of the benchmarks' tables that each day of a guest fills."""
    return tuple("full" if day.name == "base" else day.name for day in DAYS_OF[guest])


def _day(guest: Guest, context: Context, *, transactions: int) -> None:
    """A day's users: transactions, log lines, mails, every tenth document edited where it lies."""
    maker = ContentMaker(context.seed)
    context.database.work(guest, transactions=transactions, seed=context.seed)
    guest.write("/var/log/syslog", maker.log_lines(30_000, day=context.day), append=True)
    _mails(guest, maker, count=150, day=context.day)
    for path in sorted(guest.root.glob("home/user/documents/*/*.txt"))[context.day :: 10]:
        text = path.read_text()
        place = maker.integers(0, len(text), 1)[0]
        path.write_text(text[:place] + maker.prose(400) + text[place:])


def _drop_packages(guest: Guest, context: Context) -> None:
    """Empty the package cache of a guest that does not keep one."""
    if not context.recipe.keeps_package_cache:
        guest.run("apt-get", "clean")


def _mails(guest: Guest, maker: ContentMaker, *, count: int, day: int) -> None:
    for number in range(count):
        guest.write(f"/home/user/Maildir/cur/{day}.{number}.guest:2,S", maker.mail(number, day=day))


def _maintain(guest: Guest) -> None:
    """What cron does at night."""
    guest.shell("mandb -q || true; updatedb || true")
