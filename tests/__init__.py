# SPDX-License-Identifier: Apache-2.0
"""Tests. `tests/support` is imported by its full name, from wherever pytest is started."""
