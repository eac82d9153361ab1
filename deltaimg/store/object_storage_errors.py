# SPDX-License-Identifier: Apache-2.0
"""What obstore raises, as an error of the store: the one place where its errors are read.

It has a few classes, and a text: what it was doing, then either the status of the server's answer and its body, or how the
connection failed, as Rust prints its errors. Bodies have a code (`<Code>NoSuchBucket</Code>`), which is what counts.

Always  none of that text reaches a user: it may repeat what was sent. Messages are made of codes and of words from here.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from msgspec import Struct

from deltaimg.errors import (
    HostNotVerified,
    NameNotKept,
    ObjectExists,
    ObjectNotFound,
    PermissionDenied,
    PlaceNotFound,
    StoreError,
    StoreFull,
    StoreUnavailable,
)

_CODE = re.compile(r"<Code>([A-Za-z0-9_.-]{1,60})</Code>")
_STATUS = re.compile(r"status code: (\d{3})\b|\bstatus: (\d{3}),")
_DETAILS = "\n\nDebug source:"
_INSTANCE_METADATA = re.compile(r"169\.254\.(169\.254|170\.2)|fd00:ec2::254|metadata\.google")

_CLOCK = {"RequestTimeTooSkewed", "RequestExpired"}
_WRONG_KEY = {
    "AuthorizationHeaderMalformed",
    "InvalidAccessKeyId",
    "InvalidSecurity",
    "NotSignedUp",
    "SignatureDoesNotMatch",
    "AuthenticationFailed",
    "InvalidAuthenticationInfo",
}
_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "InvalidToken", "TokenRefreshRequired"}
_NO_BUCKET = {"NoSuchBucket", "ContainerNotFound"}
_ELSEWHERE = {"PermanentRedirect", "TemporaryRedirect", "IllegalLocationConstraintException"}
_FULL = {
    "QuotaExceeded",
    "StorageFull",
    "XMinioStorageFull",
    "InsufficientStorage",
    "QuotaExceededException",
    "TooManyBuckets",
}
_SLOW_DOWN = {"SlowDown", "Throttling", "ThrottlingException", "TooManyRequests", "RequestLimitExceeded", "ServerBusy"}

_CONNECTION = (
    (
        "UnknownIssuer",
        "its certificate is of an unknown authority",
        "name the authority's certificate: ?ca=FILE in the address",
    ),
    ("NotValidForName", "its certificate is for another name", "use the name in the certificate"),
    ("Expired", "its certificate has expired", "renew it, or set the clock of this host"),
    ("NotValidYet", "its certificate is not valid yet", "set the clock of this host"),
    ("InvalidCertificate", "its certificate is not valid", None),
    ("certificate", "its certificate is not valid", None),
)
"""Of a host whose identity cannot be verified: a word of the text, what it means, and what to do."""
_SILENCE = (
    ("dns error", "its name cannot be resolved"),
    ("ConnectionRefused", "refuses connections"),
    ("InvalidContentType", "does not speak TLS: is it http:// there?"),
    ("NetworkUnreachable", "is unreachable"),
    ("HostUnreachable", "is unreachable"),
    ("tcp connect error", "cannot be reached"),
    ("proxy", "cannot be reached through the proxy"),
    ("TimedOut", "does not answer in time"),
    ("timed out", "does not answer in time"),
    ("Timeout", "does not answer in time"),
    ("ConnectionReset", "closed the connection"),
    ("BrokenPipe", "closed the connection"),
    ("IncompleteMessage", "closed the connection"),
    ("UnexpectedEof", "closed the connection"),
)


class RangeRefused(StoreError):
    """The server did not send a range: the object ends before it begins, or the server knows no ranges."""


class _Answer(Struct, frozen=True):
    """What an error says: the status and the code of the server's answer, as far as there are any, and the whole text."""

    status: int
    code: str
    text: str

    @classmethod
    def of(cls, error: BaseException) -> _Answer:
        text = str(error)
        status = _STATUS.search(text)
        code = _CODE.search(text)
        number = int(status[1] or status[2]) if status else 0
        return cls(number, code[1] if code else "", text)

    @property
    def label(self) -> str:
        """The answer for people: the code, or the status where there is none."""
        return self.code or f"status {self.status}"


class ObjectStorageErrors:
    """Translates the errors of one bucket."""

    def __init__(self, location: str, bucket: str, host: str, *, credentials_hint: str) -> None:
        """Args: host: where the bucket is, for messages. credentials_hint: where credentials are looked for."""
        self._location, self._bucket, self._host = location, bucket, host
        self._credentials_hint = credentials_hint

    def translate(self, name: str, error: BaseException, unreachable: str = "") -> StoreError:
        """Return the error for what obstore raised about the object `name`.

        Args:
            unreachable: how a connection that was made for obstore failed (`PacedRelay.failure`).
        """
        answer = _Answer.of(error)
        found = self._of_bucket(answer) or self._of_credentials(answer) or _of_class(name, error, answer)
        return found or self._of_server(name, answer) or self._of_connection(name, unreachable or answer.text)

    def _of_bucket(self, answer: _Answer) -> StoreError | None:
        if answer.code in _NO_BUCKET:
            problem = f"there is no bucket '{self._bucket}' at {self._host}"
            return PlaceNotFound(self._location, problem, hint="make the bucket, or correct its name")
        if answer.code in _ELSEWHERE or answer.status in (301, 307):
            problem = f"the bucket '{self._bucket}' is in another region"
            return PlaceNotFound(self._location, problem, hint="name the region: ?region=REGION in the address")
        if answer.code in ("InvalidBucketName", "InvalidResourceName"):
            return PlaceNotFound(self._location, f"'{self._bucket}' is no possible name of a bucket")
        return None

    def _of_credentials(self, answer: _Answer) -> StoreError | None:
        if _INSTANCE_METADATA.search(answer.text.partition(_DETAILS)[0]):
            return PermissionDenied(self._location, "there are no credentials", hint=self._credentials_hint)
        if answer.code in _CLOCK:
            problem = "the clock of this host differs too much from the server's, which refuses the request"
            return PermissionDenied(self._location, problem, hint="set the clock of this host: 'timedatectl' shows it")
        if answer.code in _EXPIRED:
            problem = f"the credentials have expired ({answer.label})"
            return PermissionDenied(self._location, problem, hint="log in again, or get new credentials")
        if answer.code in _WRONG_KEY or answer.status == 401:
            problem = f"the server refuses the credentials ({answer.label})"
            return PermissionDenied(self._location, problem, hint=f"check them: {self._credentials_hint}")
        return None

    def _of_server(self, name: str, answer: _Answer) -> StoreError | None:
        if answer.code in _FULL or answer.status == 507:
            return StoreFull(name, f"cannot be stored in {self._location}: {answer.label}")
        if answer.code in ("InvalidRange", "RequestedRangeNotSatisfiable") or answer.status == 416:
            return RangeRefused(name, "ends before the range")
        if answer.status == 403:
            problem = f"the server refuses access to {name} ({answer.label})"
            return PermissionDenied(self._location, problem, hint="check the permissions of this user for the bucket")
        if answer.code in _SLOW_DOWN or answer.status in (429, 503):
            problem = f"{self._location} asks to slow down ({answer.label})"
            return StoreUnavailable(name, problem, hint="run again later, or limit requests with --max-requests")
        if answer.status in (400, 405, 411, 414, 501):
            return StoreError(name, f"{self._location} refuses the request ({answer.label})")
        if answer.status:
            return StoreUnavailable(name, f"{self._location} fails ({answer.label})", hint=_LATER)
        return None

    def _of_connection(self, name: str, text: str) -> StoreError:
        for word, problem, hint in _CONNECTION:
            if word in text:
                return HostNotVerified(self._location, f"{self._host}: {problem}", hint=hint or _CERTIFICATE)
        what = next((problem for word, problem in _SILENCE if word in text), "fails")
        return StoreUnavailable(name, f"{self._host} {what}", hint=_REACH)


_LATER = "run again later; the server's own log may say more"
_REACH = "check the address and the network, then run again"
_CERTIFICATE = "ask whoever runs the server"


def _of_class(name: str, error: BaseException, answer: _Answer) -> StoreError | None:
    """Return what the class of an error says by itself."""
    kind = type(error).__name__
    build: Callable[[], StoreError] | None = {
        "FileNotFoundError": lambda: ObjectNotFound(name),
        "AlreadyExistsError": lambda: ObjectExists(name),
        "ValueError": lambda: NameNotKept(name, "is no possible name in object storage"),
        "InvalidPathError": lambda: NameNotKept(name, "is no possible name in object storage"),
    }.get(kind)
    if build is None and "non-partial response" in answer.text:
        return RangeRefused(name, "was sent whole where a range was asked for")
    return build() if build else None
