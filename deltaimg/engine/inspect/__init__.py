# SPDX-License-Identifier: Apache-2.0
"""What a repository holds, from its metadata, and how fast this machine is; no content is read and nothing is changed."""
