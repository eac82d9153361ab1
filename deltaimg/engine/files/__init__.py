# SPDX-License-Identifier: Apache-2.0
"""Signatures, deltas and patches of single files, without a repository: a file each format, found through `registry`."""
