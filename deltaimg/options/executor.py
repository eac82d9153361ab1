# SPDX-License-Identifier: Apache-2.0
"""Where independent jobs run: `--executor` of the verbs that have them."""

from __future__ import annotations

from dataclasses import dataclass

from deltaimg.options.definition import option
from deltaimg.options.values import ValueType


@dataclass(frozen=True, slots=True)
class ExecutorOptions:
    """On which machines a verb works."""

    executor: str | None = option(
        None,
        ValueType("ADDRESS", str),
        "Read and compute on the workers of a Dask cluster that see the repository: dask://HOST:PORT.",
        default_text="this machine",
    )
