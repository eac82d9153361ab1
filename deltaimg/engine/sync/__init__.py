# SPDX-License-Identifier: Apache-2.0
"""Copy snapshots from one repository to another."""
