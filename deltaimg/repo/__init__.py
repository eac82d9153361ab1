# SPDX-License-Identifier: Apache-2.0
"""Where snapshots are kept: objects, the index over records, maps and chains, locks."""
