# SPDX-License-Identifier: Apache-2.0
"""`deltaimg key`."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from deltaimg.cli.option_parameters import takes_options
from deltaimg.cli.options import Json, Quiet, Repo, Verbose, check_output, require_repo
from deltaimg.cli.passphrase import ask_new_passphrase, ask_passphrase
from deltaimg.cli.store_access import open_repo
from deltaimg.cli.terminal import Terminal, format_moment
from deltaimg.errors import UsageError
from deltaimg.options.store import StoreOptions

if TYPE_CHECKING:
    from deltaimg.api.keys import Key, KeySlot
    from deltaimg.api.results import Repository

_NEW_HINT = "give --new-passphrase-file or --new-key-file"
_MAX_TEXT_BYTES = 1 << 16


NewPassphraseFile = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        "--new-passphrase-file",
        metavar="FILE",
        help="'add', 'change', 'import': the new passphrase is the first line of this file.",
        show_default="ask",
    ),
]
NewKeyFile = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        "--new-key-file",
        metavar="FILE",
        help="'add', 'change', 'import': the new key is this key file, which is made if it does not exist.",
        show_default=False,
    ),
]


@takes_options
def key(
    action: Annotated[
        str, typer.Argument(metavar="ACTION", help="'add', 'change', 'export', 'import', 'list' or 'remove'.")
    ],
    store: StoreOptions,
    name: Annotated[
        Optional[str],  # noqa: UP045  typer reads this at run time
        typer.Argument(
            metavar="NAME",
            help="'remove': label or id of the key. 'export', 'import': the file with the recovery text; '-' is the standard "
            "output or input.",
            show_default=False,
        ),
    ] = None,
    new_passphrase_file: NewPassphraseFile = None,
    new_key_file: NewKeyFile = None,
    label: Annotated[
        str, typer.Option("--label", metavar="TEXT", help="'add', 'import': whose key it is; readable without a key.")
    ] = "",
    qr: Annotated[
        bool,
        typer.Option("--qr", help="'export': as a QR code of the text; a PNG in the file, or drawn at the terminal."),
    ] = False,
    write_only: Annotated[
        bool,
        typer.Option(
            "--write-only",
            help="'add': with this key file backups can be made, and none can be read. See docs/security.md.",
        ),
    ] = False,
    repo: Repo = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Manage the keys of an encrypted repository.

    Any of its keys opens it: a passphrase or a key file. Adding or removing one writes nothing else again. The last one
    cannot be removed.

    'add --write-only' makes a key file for a host that backs up and cannot read what is stored: a thief of that host gets no
    backup of it.

    'list' needs no key. 'change' puts a new key in the place of the one that is given.

    'export' writes the secret of the repository as lines with checksums, to be kept on paper in a safe: whoever has them can
    read the repository. With --qr they are a QR code, for a print that is scanned rather than typed. 'import' makes a new key
    of the lines, or of a picture of the code (PNG or JPEG), when all others are lost.

    A removed key no longer opens the repository as it is now, but may open a copy from before.

    Examples:

        deltaimg key list
        deltaimg key add --label "backup host 2" --new-key-file /etc/deltaimg/key
        deltaimg key add --write-only --label web1 --new-key-file web1.key
        deltaimg key change --new-passphrase-file /run/new
        deltaimg key remove "backup host 2"
        deltaimg key export /run/recovery.txt
        deltaimg key export /run/recovery.png --qr
    """
    places = new_passphrase_file, new_key_file
    with Terminal(as_json=as_json, is_quiet=quiet, is_verbose=verbose) as terminal:
        _check(action, name, qr=qr, write_only=write_only)
        if action == "list":
            _list(terminal, require_repo(repo), store)
        elif action == "add":
            _add(terminal, open_repo(repo, store, terminal), places, label, is_write_only=write_only)
        elif action == "remove":
            _remove(terminal, open_repo(repo, store, terminal), name or "")
        elif action == "change":
            _change(terminal, repo, store, places)
        elif action == "export":
            _export(terminal, open_repo(repo, store, terminal), name or "-", is_code=qr)
        elif action == "import":
            _import(terminal, require_repo(repo), store, name or "-", places, label)
        else:
            raise UsageError(
                f"'{action[:60]}' is no action", hint="use 'add', 'change', 'export', 'import', 'list' or 'remove'"
            )


def _check(action: str, name: str | None, *, qr: bool, write_only: bool) -> None:
    """Refuse what does not go with an action; raises UsageError."""
    if action == "remove" and name is None:
        raise UsageError("'remove' needs the label or id of a key", hint="'deltaimg key list' shows them")
    if qr and action != "export":
        raise UsageError("--qr is for 'export'", hint="'import' reads a picture of the code as it is")
    if write_only and action != "add":
        raise UsageError(
            "--write-only is for 'add'", hint="a key stays what it was made as; add one and remove the other"
        )
    if action in ("add", "change", "list") and name is not None:
        raise UsageError(f"'{action}' takes no name", hint="--label names a new key" if action == "add" else None)


Places = tuple[Optional[str], Optional[str]]  # noqa: UP045
"""Where a new key is: the file with a passphrase, the key file."""


def find_new_key(places: Places) -> Key:
    """Return a new key, asked for at the terminal where no place is given; raises UsageError."""
    from deltaimg.api.keys import make_key_file, read_keys

    passphrase_file, key_file = places
    if passphrase_file is not None and key_file is not None:
        raise UsageError("--new-passphrase-file and --new-key-file exclude each other")
    if key_file is not None and not os.path.lexists(key_file):
        return make_key_file(key_file)
    if passphrase_file is not None or key_file is not None:
        return read_keys(StoreOptions(passphrase_file=passphrase_file, key_file=key_file), {})[0]
    asked = ask_new_passphrase()
    if asked is None:
        raise UsageError("no new key is given", hint=_NEW_HINT)
    return asked


def _list(terminal: Terminal, location: str, store: StoreOptions) -> None:
    from deltaimg.api.keys import list_keys
    from deltaimg.describe.keys import describe_key, find_since

    found = list_keys(location, store)
    for error in found.damage:
        terminal.warn(str(error))
    if terminal.as_json:
        terminal.print_json([describe_key(each) for each in found.slots])
        return
    since = [find_since(each) for each in found.slots]
    rows = [
        [each.id[:8], each.type, each.label, format_moment(moment, to_minutes=True) if moment else "?"]
        for each, moment in zip(found.slots, since, strict=True)
    ]
    terminal.print_table(("id", "type", "label", "since"), rows)


def _add(terminal: Terminal, repository: Repository, places: Places, label: str, *, is_write_only: bool) -> None:
    from deltaimg.api.keys import add_key

    if is_write_only and places[1] is None:
        raise UsageError("a write-only key is a key file", hint="give --new-key-file")
    _report(terminal, "added", add_key(repository, find_new_key(places), label, is_write_only=is_write_only))


def _remove(terminal: Terminal, repository: Repository, name: str) -> None:
    from deltaimg.api.keys import remove_key

    _report(terminal, "removed", remove_key(repository, name))


def _change(terminal: Terminal, repo: str | None, store: StoreOptions, places: Places) -> None:
    from deltaimg.api.keys import change_key, read_keys
    from deltaimg.api.repositories import open_repository

    location = require_repo(repo)
    given = read_keys(store)
    if len(given) > 1:
        raise UsageError("more than one key is given", hint="give the one that is to be changed")
    old = given[0] if given else ask_passphrase(location)
    repository = open_repository(location, store, key=old)
    terminal.watch(repository)
    assert old is not None  # or opening it had failed
    _report(terminal, "changed", change_key(repository, old, find_new_key(places)))


def _export(terminal: Terminal, repository: Repository, path: str, *, is_code: bool) -> None:
    from deltaimg.api.keys import export_secret, write_recovery_file
    from deltaimg.cli.qr_code import draw_lines, draw_png

    text = export_secret(repository)
    if check_output(path, as_json=terminal.as_json):
        if is_code:
            terminal.draw(draw_lines(text, has_colours=sys.stdout.isatty()))
            return
        for line in text.splitlines():
            terminal.print(line)
        return
    data = draw_png(text) if is_code else f"{text}\n".encode("ascii")
    write_recovery_file(path, data)
    terminal.remark(f"recovery text of repository {repository.config.repository_id[:8]} written to {path}")


def _import(terminal: Terminal, location: str, store: StoreOptions, path: str, places: Places, label: str) -> None:
    from deltaimg.api.keys import import_secret
    from deltaimg.cli.qr_code import MAX_PICTURE_BYTES, is_picture, read_picture

    try:
        with open(0 if path == "-" else path, "rb", closefd=path != "-") as file:
            data = file.read(_MAX_TEXT_BYTES)
            if is_picture(data):
                data += file.read(MAX_PICTURE_BYTES)
    except OSError as error:
        raise UsageError(f"{path}: {os.strerror(error.errno or 0).lower()}") from error
    text = read_picture(data, path) if is_picture(data) else data.decode("ascii", "replace")
    _report(terminal, "added", import_secret(location, text, find_new_key(places), label, store))


def _report(terminal: Terminal, what: str, slot: KeySlot) -> None:
    from deltaimg.describe.keys import describe_key

    if terminal.as_json:
        terminal.print_json(describe_key(slot))
    name = f"'{slot.label}' " if slot.label else ""
    terminal.remark(f"{slot.type} {name}({slot.id[:8]}) {what}")
