# SPDX-License-Identifier: Apache-2.0
"""The content of snapshots: the repository is only read, and every block is verified by its digest before it is used."""
