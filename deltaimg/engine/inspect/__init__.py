# SPDX-License-Identifier: Apache-2.0
"""What there is, told from metadata, and how fast this machine is; no content is read and nothing is kept."""
