# SPDX-License-Identifier: Apache-2.0
"""Content back where it came from, or held against what is there: every block is proven on the way, and no snapshot changes."""
