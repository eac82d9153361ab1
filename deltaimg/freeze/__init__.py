# SPDX-License-Identifier: Apache-2.0
"""An image at a point in time: clones and snapshots that last as long as a backup reads, and commands that stop its writers."""
