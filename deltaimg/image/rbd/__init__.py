# SPDX-License-Identifier: Apache-2.0
"""Images in a pool of Ceph (RBD), through librbd: the library that qemu and the program `rbd` use.

Nothing is mapped or mounted, and no other program runs. Which cluster and which user: what Ceph itself reads, ceph.conf and the
variables CEPH_CONF, CEPH_ARGS and CEPH_KEYRING.
"""
