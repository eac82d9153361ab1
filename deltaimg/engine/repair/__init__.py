# SPDX-License-Identifier: Apache-2.0
"""Repair of a damaged repository. What is stored was verified by its name or its id; damaged objects are moved, not deleted."""
