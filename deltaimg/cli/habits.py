# SPDX-License-Identifier: Apache-2.0
"""What people type who know other programs: restic, borg, rsync. Each habit gets the hint that a colleague would give."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

_CLOSE = 0.75
"""How much a name resembles another that may be meant: 'guest' is no misspelt 'target'."""

SYNONYMS = {
    "archives": "snapshots",
    "break-lock": "unlock",
    "compact": "prune",
    "copy": "sync",
    "create": "backup",
    "delete": "forget",
    "du": "stats",
    "dump": "cat",
    "extract": "restore",
    "fsck": "check",
    "gc": "prune",
    "info": "show",
    "list": "snapshots",
    "ls": "snapshots",
    "purge": "prune",
    "rebuild-index": "repair",
    "recover": "repair",
    "remove": "forget",
    "replicate": "sync",
    "rm": "forget",
    "scrub": "verify",
}
"""What other backup programs call a command of ours."""

_MOUNT = "'deltaimg mount FOLDER' shows snapshots as files; 'mount -o ro,loop' or 'guestmount' mounts one of them"
_WHOLE_IMAGES = "an image is stored as a whole; 'backup --free-space skip' leaves out what its file systems have free"
_POLICY = "'deltaimg forget --keep-daily 7 --prune' applies a policy; prune deletes what no snapshot needs"
_NAMES = "name images: 'deltaimg {command} vm1'"
_TAG = "'deltaimg tag add SNAPSHOT TAG', 'deltaimg tag remove SNAPSHOT TAG'"

_COMMAND_HINTS = {"find": _MOUNT, "ncdu": _MOUNT, "umount": "umount(8) ends a mount, or CTRL-C"}
"""What to do where there is no such command, and none that does the same."""

_OPTION_HINTS = {
    "": {
        "--compact": "-q prints names alone, --json all there is",
        "--exclude": _WHOLE_IMAGES,
        "--exclude-file": _WHOLE_IMAGES,
        "--files-from": _WHOLE_IMAGES,
        "--include": _WHOLE_IMAGES,
        "--limit-download": "use --bwlimit UP:DOWN, such as off:10M",
        "--limit-upload": "use --bwlimit, such as 10M",
        "--no-cache": "--pack-cache none keeps no packs; 'deltaimg cache' shows and cleans what is kept",
        "--one-file-system": _WHOLE_IMAGES,
        "--password-command": "use --passphrase-command",
        "--password-file": "use --passphrase-file",
        "--progress": "progress is shown without it; -q leaves it out",
        "--rsh": "addresses such as sftp://host/folder use ~/.ssh/config",
        "--short": "-q prints names alone, --json all there is",
        "--stats": "the summary is printed without it; 'deltaimg stats' sums up the repository",
        "--upload-ratelimit": "use --bwlimit, such as 10M",
        "-p": "use --passphrase-file",
    },
    "backup": {"--host": "a snapshot belongs to an image: say --image NAME; the host is noted in any case"},
    "check": {
        "--read-data": "use --read-packs; 'deltaimg verify' decodes all content as well",
        "--read-data-subset": "'deltaimg verify --percent 5' verifies a share that was not verified lately",
        "--repair": "'deltaimg repair' repairs; look at 'deltaimg repair --dry-run' first",
        "--verify-data": "'deltaimg verify' decodes and verifies all content",
    },
    "forget": {
        "--glob-archives": _NAMES,
        "--group-by": "a policy is applied to each image by itself",
        "--host": _NAMES,
        "--image": _NAMES,
        "--prefix": _NAMES,
    },
    "init": {
        "--copy-chunker-params": "use --like REPOSITORY",
        "--from-repo": "use --like REPOSITORY",
        "-e": "use --encryption",
    },
    "mirror": {
        "--archive": "one image is copied; its owner and times are not",
        "-a": "one image is copied; its owner and times are not",
        "--compress": "what is sent is compressed already",
        "--inplace": "use --in-place",
        "--rsync-path": "use --remote-command",
        "-z": "what is sent is compressed already",
    },
    "prune": {"--max-repack-size": "use --max-repack"},
    "restore": {
        "--target": "the target is the second argument: 'deltaimg restore SNAPSHOT TARGET'",
        "--verify": "every restore verifies each block by its digest",
        "-t": "the target is the second argument: 'deltaimg restore SNAPSHOT TARGET'",
    },
    "snapshots": {"--group-by": _NAMES, "--host": _NAMES, "--image": _NAMES},
    "sync": {
        "--from-repo": "source and destination are arguments: 'deltaimg sync SOURCE DESTINATION'",
        "--from-repository": "source and destination are arguments: 'deltaimg sync SOURCE DESTINATION'",
    },
    "tag": {"--add": _TAG, "--remove": _TAG, "--set": _TAG},
    "unlock": {"--remove-all": "'deltaimg unlock' lists locks, 'deltaimg unlock NAME' removes one"},
    "verify": {"--read-data-subset": "use --percent, such as 5"},
}
"""What to write in place of an option of another program, of one command or (under "") of any."""


def suggest_command(name: str, commands: Iterable[str]) -> str:
    """Return the hint for a command that does not exist: what does the same, or is written alike."""
    name = name.lower()
    if name in _COMMAND_HINTS:
        return _COMMAND_HINTS[name]
    meant = SYNONYMS.get(name) or next(iter(get_close_matches(name, list(commands), 1)), None)
    return f"did you mean 'deltaimg {meant}'?" if meant else "'deltaimg help' lists the commands"


def suggest_option(option: str, command: str, known: Iterable[str]) -> str:
    """Return the hint for an option that a command does not have; `known` are those that may be meant."""
    if not command:
        return "options of a command stand behind it: 'deltaimg COMMAND OPTIONS'; 'deltaimg help' lists the commands"
    if hint := _OPTION_HINTS.get(command, {}).get(option) or _OPTION_HINTS[""].get(option):
        return hint.format(command=command)
    if command == "prune" and option.startswith("--keep-"):
        return _POLICY
    names = list(known)
    in_another_order = [name for name in names if sorted(name.split("-")) == sorted(option.split("-"))]
    close = in_another_order or get_close_matches(option, names, 2, _CLOSE)
    begin = f"did you mean {' or '.join(close)}? " if close else ""
    return f"{begin}'deltaimg help {command}' lists its options"


def suggest_repository(command: str, argument: str) -> str | None:
    """Return the hint for an argument of a command that takes none: it may be the repository; None for other commands."""
    if command not in ("check", "init", "prune", "stats"):
        return None
    return f"a repository is named with -r: 'deltaimg {command} -r {argument}'"
