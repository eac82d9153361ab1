# SPDX-License-Identifier: Apache-2.0
"""Deletion of what no snapshot needs. Nothing else deletes content: only what was listed, waited for and marked twice."""
