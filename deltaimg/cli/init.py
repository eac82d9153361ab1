# SPDX-License-Identifier: Apache-2.0
"""`deltaimg init`."""

from __future__ import annotations

import os
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from deltaimg.cli.option_parameters import takes_options
from deltaimg.cli.options import Json, Quiet, Repo, Verbose, require_repo
from deltaimg.cli.passphrase import ask_new_passphrase, ask_passphrase
from deltaimg.cli.terminal import Terminal
from deltaimg.errors import UsageError
from deltaimg.options.store import StoreOptions

if TYPE_CHECKING:
    from deltaimg.api.keys import Key
    from deltaimg.api.results import Repository


Encryption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        "--encryption",
        metavar="HOW",
        help="'passphrase', 'keyfile' (made if it does not exist) or 'none': who can read the repository can then read the "
        "images.",
        show_default="as a key is given; else ask, or without a terminal 'none'",
    ),
]

Padding = Annotated[
    Optional[bool],  # noqa: UP045
    typer.Option(
        "--padding/--no-padding",
        help="Pad what is encrypted, so that sizes say less of how well content compresses. Stored: about 1.5 % more.",
        show_default="as the encrypted repository of --like; else not",
    ),
]


@takes_options
def init(
    store: StoreOptions = StoreOptions(),
    repo: Repo = None,
    group: Annotated[
        Optional[str],  # noqa: UP045  typer reads this at run time
        typer.Option(
            "--group",
            metavar="GROUP",
            help="Share it: every member of this group, a name or a number, may back up to it and prune it.",
            show_default=False,
        ),
    ] = None,
    like: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            "--like",
            metavar="REPO",
            help="Make a member of this repository's family, to which 'sync' copies records without decoding them.",
            show_default=False,
        ),
    ] = None,
    encryption: Encryption = None,
    padding: Padding = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Create a repository.

    Its folder must be empty, or not exist yet. Modes follow the umask, but nothing in it is ever open to all users.

    An encrypted repository can be read, and changed unnoticed, only by who has a key of it. If all of them are lost, so is
    the repository: 'deltaimg key export' writes one for a safe. What is made without encryption stays so; 'sync' copies its
    snapshots to one that is encrypted.

    Repositories of a family have the key of their digests in common and, where encrypted, also what they are encrypted with.

    Examples:

        deltaimg init -r /backup/repo
        deltaimg init -r /backup/repo --encryption passphrase
        deltaimg init -r /backup/repo --encryption keyfile --key-file /etc/my.key
        deltaimg init -r /backup/repo --encryption passphrase --padding
        deltaimg init -r /srv/backup/repo --group backup
        deltaimg init -r /mnt/offsite/repo --like /backup/repo
    """
    from deltaimg.api.repositories import create_repository
    from deltaimg.describe.repository import describe_repository

    location = require_repo(repo)
    with Terminal(as_json=as_json, is_quiet=quiet, is_verbose=verbose) as terminal:
        key = _choose_key(encryption, store)
        with nullcontext() if like is None else _open_like(like, store) as model:
            if key is None and encryption is None and model is not None and model.config.is_encrypted:
                raise UsageError(
                    f"{like} is encrypted, and no key is given for the new repository",
                    hint="give --encryption passphrase, keyfile or none",
                )
            repository = create_repository(location, store, group=group, like=model, key=key, is_padded=padding)
        terminal.watch(repository)
        config = repository.config
        if as_json:
            terminal.print_json(describe_repository(location, config))
        how = ("encrypted and padded" if config.is_padded else "encrypted") if config.is_encrypted else "not encrypted"
        terminal.remark(f"repository {config.repository_id[:8]} made in {location}, {how}")
        _advise_on_keys(terminal, repository, model, store)


def _advise_on_keys(terminal: Terminal, repository: Repository, model: Repository | None, store: StoreOptions) -> None:
    """Say what to do about the keys of a new repository; `model` is the one like which it was made."""
    from deltaimg.api.keys import is_key_given

    if repository.config.is_encrypted and model is not None and model.config.is_encrypted:
        like = model.objects.location
        terminal.remark(f"a recovery text of {like} makes a key of this one as well: both have the same secret")
    elif repository.config.is_encrypted:
        terminal.remark(
            "keep a copy of its key elsewhere: without a key nothing in it can be read ('deltaimg key export')"
        )
    elif model is None and is_key_given(store):
        terminal.warn("it is not encrypted: commands refuse it while a key is given, as one is now")


def _open_like(location: str, store: StoreOptions) -> Repository:
    from deltaimg.api.repositories import open_repository

    return open_repository(location, store, ask=ask_passphrase, may_be_plain=True)


def _choose_key(encryption: str | None, store: StoreOptions) -> Key | None:
    """Return the key of the new repository, None for one without encryption; raises UsageError."""
    from deltaimg.api.keys import Passphrase, make_key_file, read_keys

    if encryption not in (None, "passphrase", "keyfile", "none"):
        raise UsageError(f"--encryption '{encryption[:40]}' is not valid", hint="write passphrase, keyfile or none")
    if encryption == "none":
        return None
    path = store.key_file
    if encryption == "keyfile" and path is not None and not os.path.lexists(path):
        return make_key_file(path)
    given = read_keys(store)
    if encryption is not None:
        given = [each for each in given if isinstance(each, Passphrase) == (encryption == "passphrase")]
    if given:
        return given[0]
    if encryption == "keyfile":
        raise UsageError("no key file is given", hint="give --key-file FILE; it is made if it does not exist")
    asked = ask_new_passphrase(may_be_empty=encryption is None)
    if asked is None and encryption is not None:
        raise UsageError("no passphrase is given", hint="give --passphrase-file or --passphrase-command")
    return asked
