# SPDX-License-Identifier: Apache-2.0
"""`config`: what a repository is, readable without any key. Written once, by `init`."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from deltaimg.errors import Malformed
from deltaimg.format.documents import build_document, parse_document
from deltaimg.format.framing import HEADER_BYTES, Kind

CONFIG_NAME = "config"

Hex32 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}\Z")]
Hex64 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]


class Config(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Identity of a repository and, in one without encryption, the key of its block digests.

    The digest key keeps a guest from making two blocks collide on purpose. Without encryption it is no secret to anyone who
    can read the repository; with it, it is in the key slots.
    """

    repository_id: Hex32
    created: str
    digest_key: Hex64 | None = None
    encryption: Literal["aes-256-gcm"] | None = None
    padding: Literal["padme"] | None = None
    """How what is sealed is padded before."""
    software: str = ""
    family: Hex32 | None = None
    """The `repository_id` of the repository whose digest key this one shares; None in the first of a family."""

    @property
    def is_encrypted(self) -> bool:
        """Whether its objects are sealed, so that a key is needed."""
        return self.encryption is not None

    @property
    def is_padded(self) -> bool:
        """Whether what is sealed is padded, so that its size says little."""
        return self.padding is not None

    @property
    def family_id(self) -> str:
        """The id that all members of its family have in common: that of the first."""
        return self.family or self.repository_id


def build_config(config: Config) -> bytes:
    """Return the object `config`."""
    return build_document(Kind.CONFIG, config)


def parse_config(data: bytes, name: str = CONFIG_NAME) -> Config:
    """Read the object `config`; raises IntegrityError or UnsupportedFormat."""
    config = parse_document(Kind.CONFIG, name, data, Config)
    if config.is_encrypted == (config.digest_key is not None):
        raise Malformed(name, HEADER_BYTES, "it has a digest key and is encrypted, or neither")
    if config.is_padded and not config.is_encrypted:
        raise Malformed(name, HEADER_BYTES, "it has padding and is not encrypted")
    return config
