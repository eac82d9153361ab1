# SPDX-License-Identifier: Apache-2.0
"""Check a repository's structure: objects are compared with each other; no snapshot is assembled, and nothing is changed."""
