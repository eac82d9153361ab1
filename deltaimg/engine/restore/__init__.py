# SPDX-License-Identifier: Apache-2.0
"""Restore a snapshot, or compare it with an image: every block is verified, and no snapshot changes."""
