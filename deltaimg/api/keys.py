# SPDX-License-Identifier: Apache-2.0
"""Encrypted repositories: which key opens one, and the keys that it has.

A passphrase or a key file is read from where it is kept, and never from a command line, which all users of a host can read.
From then on this process leaves no core dump.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial

from deltaimg.crypto.key_file import make_key_file as make_key_file_at
from deltaimg.crypto.key_file import read_key_file as read_key_file
from deltaimg.crypto.key_slots import Key as Key
from deltaimg.crypto.key_slots import KeyFile as KeyFile
from deltaimg.crypto.key_slots import Passphrase as Passphrase
from deltaimg.crypto.recovery import build_recovery_text, parse_recovery_text
from deltaimg.crypto.secret import HostSecret, Secret
from deltaimg.errors import EncryptionMissing, KeyNeeded, UsageError, WrongKey
from deltaimg.format.config import Config
from deltaimg.format.key_slot import KeySlot as KeySlot
from deltaimg.image.repository_files import refuse_in_repository
from deltaimg.options.store import StoreOptions
from deltaimg.posix import forbid_core_dumps, write_secret
from deltaimg.processes import name_own_process
from deltaimg.repo import host_memory
from deltaimg.repo.key_slots import (
    KeySlots as KeySlots,
)
from deltaimg.repo.key_slots import (
    add_key_slot,
    expect_secret,
    load_key_slots,
    open_key_slots,
    opens_content,
    remove_key_slot,
    replace_key_slot,
)
from deltaimg.repo.objects import Objects
from deltaimg.repo.repository import Repository
from deltaimg.store.compose import compose_store

AskKey = Callable[[str, bool], "Key | None"]
"""Asks for the key of the repository at a location, and says so if the one before was wrong; None: there is no terminal."""

PASSPHRASE_VARIABLE = "DELTAIMG_PASSPHRASE"  # noqa: S105  the name of a variable
_CREDENTIALS = "CREDENTIALS_DIRECTORY"
_PASSPHRASE_CREDENTIAL, _KEY_CREDENTIAL = "deltaimg.passphrase", "deltaimg.key"
_MAX_PASSPHRASE_BYTES = 4096
_QUESTIONS = 3


def make_key_file(path: str) -> KeyFile:
    """Write a new key file, and return its key; raises UsageError.

    In a repository it is refused: whoever can read that could open it, as could whoever gets a copy of it.
    """
    refuse_in_repository(path)
    return make_key_file_at(path)


def write_recovery_file(path: str, data: bytes) -> None:
    """Write what `export_secret` returned, or a picture of it, to a new file; raises UsageError as `make_key_file`."""
    refuse_in_repository(path)
    try:
        write_secret(path, data)
    except OSError as error:
        why = os.strerror(error.errno or 0).lower()
        raise UsageError(
            f"{path}: cannot be written: {why}", hint="name a new file, where there is room for it"
        ) from error


def read_keys(options: StoreOptions | None, environment: Mapping[str, str] = os.environ) -> list[Key]:
    """Return the keys in the places that options name; without such, the one in the environment, or a credential of systemd.

    Raises:
        UsageError: what is in one of these places cannot be read, or is no key.
    """
    places = _list_places(options, environment)
    if places:
        forbid_core_dumps()
    return [read() for read in places]


def unlock(
    objects: Objects, config: Config, *, options: StoreOptions | None, key: Key | None, ask: AskKey | None
) -> Secret | HostSecret:
    """Return the secret of an encrypted repository, or that of the write-only host whose key is given.

    Args:
        key: the only one that is tried, if given. ask: called where no key is given in any way, up to three times.

    Raises:
        KeyNeeded: there is no key. WrongKey: none opens it. UsageError: one cannot be read.
    """
    keys = read_keys(options) if key is None else [key]
    forbid_core_dumps()
    if not keys and ask is not None:
        return _ask_for_key(objects, config, ask)
    if not keys:
        raise KeyNeeded(objects.location)
    for each in keys[:-1]:
        with suppress(WrongKey):
            return open_key_slots(objects, config, each)[0]
    return open_key_slots(objects, config, keys[-1])[0]


def _ask_for_key(objects: Objects, config: Config, ask: AskKey) -> Secret | HostSecret:
    """Return the secret that a key opens which was asked for; raises as `unlock`."""
    for asked in range(_QUESTIONS):
        key = ask(objects.location, asked > 0)
        if key is None:
            break
        try:
            return open_key_slots(objects, config, key)[0]
        except WrongKey:
            if asked == _QUESTIONS - 1:
                raise
    raise KeyNeeded(objects.location)


def check_encryption(repository: Repository, *, is_key_given: bool) -> None:
    """Refuse a repository without encryption where one that is encrypted is expected, and remember one that is.

    Whoever can write to a store can put a `config` without encryption in place of another, and would get backups in the clear.
    """
    location = repository.objects.location
    if repository.config.is_encrypted:
        host_memory.note_encrypted(location)
    elif is_key_given:
        raise EncryptionMissing(
            location,
            "a key is given for it",
            hint="if that is as it should be, give none: neither an option nor a variable such as DELTAIMG_KEY_FILE",
        )
    elif host_memory.was_encrypted(location):
        raise EncryptionMissing(
            location,
            "it was when this host last opened it",
            hint=f"its config was exchanged, or another repository is there now; if that is meant, remove "
            f"{host_memory.name_encrypted(location)}",
        )


def is_key_given(options: StoreOptions | None) -> bool:
    """Return whether options or the environment name a place of a key; it is not looked at."""
    return bool(_list_places(options, os.environ))


def list_keys(location: str, options: StoreOptions | None = None) -> KeySlots:
    """Return the key slots of an encrypted repository, which needs no key.

    Args:
        options: how its store may be used.

    Raises:
        UsageError: the repository is not encrypted. RepositoryNotFound: there is none.
    """
    store = compose_store(location, options, writer=name_own_process)
    if not Repository.read_config(store).is_encrypted:
        raise UsageError(f"{location}: the repository is not encrypted, and has no keys")
    return load_key_slots(Objects(store))


def add_key(repository: Repository, key: Key, label: str = "", *, is_write_only: bool = False) -> KeySlot:
    """Let a further key open a repository. Nothing that is stored is written again.

    Args:
        label: for people, whose key it is; readable in the repository without a key.
        is_write_only: whoever has this key makes backups, and cannot read any: see docs/security.md.

    Raises:
        UsageError: the repository is not encrypted, has as many keys as it may, or has one of this label; a passphrase that
            is to be write-only.
    """
    return add_key_slot(repository, key, label, datetime.now(UTC), is_write_only=is_write_only)


def remove_key(repository: Repository, name: str) -> KeySlot:
    """Let a key no longer open a repository, and return what was its slot.

    Whoever had the key and a copy of the slot can still read what they can reach: see docs/security.md.

    Args:
        name: its label or id, or the beginning of the id.

    Raises:
        UsageError: there is none, or more than one. LastKey: it is the only one.
    """
    return remove_key_slot(repository, name, datetime.now(UTC))


def change_key(repository: Repository, old: Key, new: Key) -> KeySlot:
    """Put a key in the place of the one that opened a repository; raises WrongKey if `old` does not open it."""
    _, slot = open_key_slots(repository.objects, repository.config, old)
    return replace_key_slot(repository, slot, new, datetime.now(UTC))


def export_secret(repository: Repository) -> str:
    """Return the text from which `import_secret` makes a key when all keys are lost. Whoever has it can read the repository.

    Raises:
        UsageError: the repository is not encrypted.
    """
    return build_recovery_text(expect_secret(repository), repository.config.family_id)


def import_secret(location: str, text: str, key: Key, label: str = "", options: StoreOptions | None = None) -> KeySlot:
    """Let a key open the repository at a location to which all keys are lost.

    Args:
        text: of `export_secret`. options: how its store may be used.

    Raises:
        UsageError: the text is none, or damaged, or the repository is not encrypted. WrongKey: it is of another repository.
    """
    forbid_core_dumps()
    family_id, secret = parse_recovery_text(text)
    store = compose_store(location, options, writer=name_own_process)
    config = Repository.read_config(store)
    if not config.is_encrypted:
        raise UsageError(f"{location}: the repository is not encrypted, and has no keys")
    with Repository(store, config, secret) as repository:
        if family_id != config.family_id or not opens_content(repository):
            raise WrongKey(location, "the recovery text", hint="it is of another repository")
        return add_key(repository, key, label)


def _list_places(options: StoreOptions | None, environment: Mapping[str, str]) -> list[Callable[[], Key]]:
    """Return what reads the key in each place that is named."""
    found: list[Callable[[], Key]] = []
    options = options or StoreOptions()
    # The command line has looked at these variables; other programs have not.
    if path := options.passphrase_file or environment.get("DELTAIMG_PASSPHRASE_FILE"):
        found.append(partial(_read_passphrase, path, f"the passphrase in {path}"))
    if command := options.passphrase_command or environment.get("DELTAIMG_PASSPHRASE_COMMAND"):
        found.append(partial(_run, command))
    if path := options.key_file or environment.get("DELTAIMG_KEY_FILE"):
        found.append(partial(read_key_file, path))
    if found:
        return found
    if passphrase := environment.get(PASSPHRASE_VARIABLE):
        return [lambda: Passphrase(passphrase, source=f"the passphrase in {PASSPHRASE_VARIABLE}")]
    if folder := environment.get(_CREDENTIALS):
        if os.path.exists(path := os.path.join(folder, _PASSPHRASE_CREDENTIAL)):
            return [partial(_read_passphrase, path, f"the credential {_PASSPHRASE_CREDENTIAL}")]
        if os.path.exists(path := os.path.join(folder, _KEY_CREDENTIAL)):
            return [partial(read_key_file, path)]
    return []


def _read_passphrase(path: str, source: str) -> Passphrase:
    """Return the first line of a file, without the end of the line."""
    try:
        with open(path, "rb") as file:
            return Passphrase(_take_line(file.read(_MAX_PASSPHRASE_BYTES + 2), path), source=source)
    except OSError as error:
        raise UsageError(f"{path}: {os.strerror(error.errno or 0).lower()}") from error


def _run(command: str) -> Passphrase:
    """Return the first line that a command prints."""
    done = subprocess.run(command, shell=True, stdout=subprocess.PIPE, check=False)  # noqa: S602  the operator's own
    if done.returncode:
        raise UsageError(f"the passphrase command failed: exit code {done.returncode}")
    where = "what the passphrase command printed"
    return Passphrase(_take_line(done.stdout, where), source=where)


def _take_line(data: bytes, where: str) -> str:
    line = data.split(b"\n", 1)[0].removesuffix(b"\r")
    if len(line) > _MAX_PASSPHRASE_BYTES:
        raise UsageError(f"{where}: a passphrase of more than {_MAX_PASSPHRASE_BYTES} bytes")
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"{where}: the passphrase is not valid UTF-8") from error
    if not text:
        raise UsageError(f"{where}: the passphrase is empty")
    return text
