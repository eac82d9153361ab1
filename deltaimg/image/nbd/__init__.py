# SPDX-License-Identifier: Apache-2.0
"""Images that an NBD server exports: qemu-nbd, qemu-storage-daemon, a running qemu, nbdkit, nbd-server.

Source  the NBD project's doc/proto.md (fixed newstyle negotiation, structured replies, block status) and doc/uri.md; qemu's
        docs/interop/nbd.rst (dirty bitmaps).
"""
