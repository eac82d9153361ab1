# SPDX-License-Identifier: Apache-2.0
"""Every byte that reaches disk: one module a file kind, pure functions, no I/O. docs/format.md is its mirror."""
