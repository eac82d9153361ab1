# SPDX-License-Identifier: Apache-2.0
"""The snapshots of a repository as files of a folder, for whatever reads files: mount, qemu, debugfs, cp."""
