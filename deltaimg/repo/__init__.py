# SPDX-License-Identifier: Apache-2.0
"""A repository of snapshots: objects, the index of records, map layers, locks."""
