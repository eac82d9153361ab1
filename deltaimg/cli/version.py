# SPDX-License-Identifier: Apache-2.0
"""`deltaimg version`."""

from __future__ import annotations

from deltaimg import __version__
from deltaimg.cli.options import Json, Quiet, Repo, Verbose
from deltaimg.cli.terminal import Terminal


def version(repo: Repo = None, as_json: Json = False, quiet: Quiet = False, verbose: Verbose = False) -> None:
    """Print the version; with -v, those of libraries too.

    Examples:

        deltaimg version
        deltaimg version -v
    """
    with Terminal(as_json=as_json, is_quiet=quiet, is_verbose=verbose) as terminal:
        versions = {"deltaimg": __version__}
        if verbose or as_json:
            from deltaimg.api.versions import find_versions

            versions |= find_versions()
        if as_json:
            terminal.print_json(versions)
            return
        for name, value in versions.items():
            terminal.print(f"{name} {value}")
