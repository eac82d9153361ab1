# SPDX-License-Identifier: Apache-2.0
"""Settings in the profile files of AWS, `~/.aws/credentials` and `~/.aws/config`, which its own tools share.

Of what a profile may have, these are read: keys, `credential_process`, `region` and `endpoint_url`. Roles and single sign-on
take requests to other services: their short-lived keys come from `credential_process`, or from the environment.
"""

from __future__ import annotations

import configparser
import os
import re
import shlex
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TypedDict

import msgspec

from deltaimg.errors import UsageError

_PROCESS_S = 60
_LOGIN = re.compile(r"sso_\w+|role_arn|source_profile")


class Credentials(TypedDict):
    """As obstore takes them from a function that is asked again once they expire."""

    access_key_id: str
    secret_access_key: str
    token: str | None
    expires_at: datetime | None


@dataclass(frozen=True, slots=True, repr=False)
class Profile:
    """The settings of one profile. It has secrets, and so no text form."""

    name: str
    settings: Mapping[str, str]

    def get(self, name: str) -> str | None:
        """Return a setting, None where there is none."""
        return self.settings.get(name)

    @property
    def has_credentials(self) -> bool:
        """Whether there are keys in it, or a command that prints some."""
        return "aws_access_key_id" in self.settings or "credential_process" in self.settings

    def load_credentials(self) -> Credentials:
        """Return the keys; raises UsageError where they are incomplete, or the command fails."""
        if "aws_access_key_id" not in self.settings:
            return _run_process(self.name, self.settings["credential_process"])
        if "aws_secret_access_key" not in self.settings:
            raise UsageError(f"the AWS profile '{self.name}' has a key without its secret")
        return Credentials(
            access_key_id=self.settings["aws_access_key_id"],
            secret_access_key=self.settings["aws_secret_access_key"],
            token=self.settings.get("aws_session_token"),
            expires_at=None,
        )

    def check_login(self) -> None:
        """Raise UsageError if its keys come from a login that is made elsewhere."""
        if not self.has_credentials and any(_LOGIN.fullmatch(name) for name in self.settings):
            raise UsageError(
                f"the AWS profile '{self.name}' takes a role or single sign-on, which deltaimg does not ask for",
                hint=f"'aws configure export-credentials --profile {self.name} --format env' prints keys for the environment",
            )


def load_profile(name: str | None) -> Profile:
    """Return a profile of this user; an empty one where none was asked for and there is none.

    Raises:
        UsageError: there is no profile of the name that was asked for, or a file cannot be read.
    """
    asked = name or os.environ.get("AWS_PROFILE")
    chosen = asked or "default"
    config = _read("AWS_CONFIG_FILE", "~/.aws/config")
    credentials = _read("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials")
    sections = (config.get(f"profile {chosen}"), config.get(chosen), credentials.get(chosen))
    found = [each for each in sections if each is not None]
    if asked and not found:
        raise UsageError(f"there is no AWS profile '{asked}'", hint="'aws configure list-profiles' lists them")
    settings: dict[str, str] = {}
    for each in found:
        settings |= each
    return Profile(chosen, settings)


def _read(variable: str, usual: str) -> dict[str, dict[str, str]]:
    """Return the sections of a file; none where it does not exist."""
    path = os.path.expanduser(os.environ.get(variable) or usual)
    parser = configparser.RawConfigParser(default_section="", strict=False)
    try:
        with open(path, encoding="utf-8") as file:
            parser.read_file(file)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
    except (configparser.Error, UnicodeDecodeError):
        # The error would show lines of the file.
        raise UsageError(f"{path}: is no file of AWS profiles") from None
    return {name: dict(parser.items(name)) for name in parser.sections()}


class _Printed(msgspec.Struct, rename="pascal"):
    """What a `credential_process` prints."""

    access_key_id: str
    secret_access_key: str
    session_token: str | None = None
    expiration: datetime | None = None


def _run_process(profile: str, command: str) -> Credentials:
    where = f"the credential_process of the AWS profile '{profile}'"
    try:
        done = subprocess.run(shlex.split(command), capture_output=True, check=False, timeout=_PROCESS_S)
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise UsageError(f"{where} cannot be run: {getattr(error, 'strerror', None) or type(error).__name__}") from None
    if done.returncode:
        raise UsageError(f"{where} failed with {done.returncode}")
    try:
        printed = msgspec.json.decode(done.stdout, type=_Printed)
    except msgspec.MsgspecError:
        raise UsageError(f"{where} printed no credentials") from None
    return Credentials(
        access_key_id=printed.access_key_id,
        secret_access_key=printed.secret_access_key,
        token=printed.session_token,
        expires_at=printed.expiration,
    )
