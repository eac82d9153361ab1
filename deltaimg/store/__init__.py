# SPDX-License-Identifier: Apache-2.0
"""Named objects without meaning: put, get, list, delete."""
