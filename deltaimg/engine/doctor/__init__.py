# SPDX-License-Identifier: Apache-2.0
"""What this host, an image and a repository allow a backup to do, and why not more. Nothing is changed by looking."""
