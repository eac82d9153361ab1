# SPDX-License-Identifier: Apache-2.0
"""Is the repository whole? All of it is looked at, nothing is put together, and nothing changes."""
