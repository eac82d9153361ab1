# SPDX-License-Identifier: Apache-2.0
"""How fast this machine and a store are."""

from __future__ import annotations

from deltaimg.engine.inspect.benchmark import measure_machine as measure_machine
