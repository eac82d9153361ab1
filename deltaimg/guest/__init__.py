# SPDX-License-Identifier: Apache-2.0
"""What is on an image: partitions and file systems, read from their own structures. Nothing is mounted or written.

A guest writes these structures and may be hostile: every length and place in them is checked, and what does not fit is not
recognised, never an error.
"""
