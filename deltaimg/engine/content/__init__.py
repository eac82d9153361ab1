# SPDX-License-Identifier: Apache-2.0
"""What snapshots hold, read back: the repository is only read, and blocks count for nothing until their digests prove them."""
