# SPDX-License-Identifier: Apache-2.0
"""Delta sources: which stored blocks a new record is encoded against, and where their bytes come from."""
