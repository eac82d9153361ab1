# SPDX-License-Identifier: Apache-2.0
"""The guests: which file system, which packages, which database."""

from __future__ import annotations

from dataclasses import dataclass

from guest.databases import Database, MariaDB, PostgreSQL

_COMMON = (
    "apt-utils", "ca-certificates", "cron", "gzip", "less", "linux-image-cloud-amd64", "locales", "logrotate",
    "man-db", "openssh-server", "perl", "plocate", "python3", "rsync", "rsyslog", "util-linux", "vim", "xz-utils",
    "zstd",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Recipe:
    """One guest. `packages_later` arrive on the day of much new data; one without a database is never used."""

    name: str
    seed: int
    mkfs: tuple[str, ...]
    packages: tuple[str, ...]
    packages_later: tuple[str, ...]
    database: Database | None
    keeps_package_cache: bool
    image_bytes: int = 8 << 30


_EXT4 = Recipe(
    name="ext4",
    seed=4,
    mkfs=("mkfs.ext4", "-q", "-F", "-U", "7b1cbf1e-9c58-4f0e-8a47-2f6d3a1b0e04",
          "-E", "hash_seed=7b1cbf1e-9c58-4f0e-8a47-2f6d3a1b0e05"),
    packages=(*_COMMON, "build-essential", "ghostscript", "git", "linux-headers-cloud-amd64",
              "perl-doc", "postgresql", "postgresql-contrib", "postgresql-doc-15",
              "python3-dev", "python3-django", "python3.11-doc"),
    packages_later=("clang-14", "tcl8.6"),
    database=PostgreSQL(scale=12),
    keeps_package_cache=True,
)  # fmt: skip

_XFS = Recipe(
    name="xfs",
    seed=5,
    mkfs=("mkfs.xfs", "-q", "-f", "-m", "uuid=7b1cbf1e-9c58-4f0e-8a47-2f6d3a1b0e06"),
    packages=(*_COMMON, "bind9", "dovecot-imapd", "firefox-esr", "imagemagick", "mariadb-server", "nginx",
              "nodejs", "php-cli", "php-fpm", "php-mysql", "roundcube-core", "ruby", "squid", "wordpress"),
    packages_later=("erlang-base", "mono-runtime", "octave"),
    database=MariaDB(rows=320_000),
    keeps_package_cache=False,
)  # fmt: skip

_MARIADB = Recipe(
    name="mariadb",
    seed=6,
    mkfs=("mkfs.ext4", "-q", "-F", "-U", "7b1cbf1e-9c58-4f0e-8a47-2f6d3a1b0e07",
          "-E", "hash_seed=7b1cbf1e-9c58-4f0e-8a47-2f6d3a1b0e08"),
    packages=("cron", "gzip", "less", "locales", "logrotate", "mariadb-server", "openssh-server", "perl", "rsyslog",
              "util-linux"),
    packages_later=(),
    database=MariaDB(rows=2_600_000),
    keeps_package_cache=False,
    image_bytes=4 << 30,
)  # fmt: skip

_RELEASE = Recipe(
    name="release",
    seed=7,
    mkfs=("mkfs.ext4", "-q", "-F"),  # a release image is made again each time, its identifiers, too
    packages=(*_COMMON, "apache2", "bind9-dnsutils", "build-essential", "cloud-init", "curl", "git", "nginx",
              "php-cli", "php-fpm", "postgresql", "python3-django", "sudo", "tcpdump", "tmux", "unattended-upgrades"),
    packages_later=(),
    database=None,
    keeps_package_cache=False,
    image_bytes=4 << 30,
)  # fmt: skip

RECIPES = {recipe.name: recipe for recipe in (_EXT4, _XFS, _MARIADB, _RELEASE)}
