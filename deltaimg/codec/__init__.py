# SPDX-License-Identifier: Apache-2.0
"""Bytes in, fewer bytes out: how a literal record is encoded."""
