# SPDX-License-Identifier: Apache-2.0
"""A folder of a server that speaks SFTP as a store; needs the extra `deltaimg[sftp]`."""
