# SPDX-License-Identifier: Apache-2.0
"""Is the repository whole? Objects are held against each other; no snapshot is put together, and nothing changes."""
