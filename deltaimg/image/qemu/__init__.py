# SPDX-License-Identifier: Apache-2.0
"""Images in files of a format of their own (qcow2, VMDK, VHDX, VDI, VHD), read through a qemu-nbd that is started for that.

Invariant  qemu guesses no format: each file of a chain is opened with one that was named by the operator, by the name that a
           file has, or by the file that lies over it. A guest can write any header into a flat image.
Invariant  nothing is written to the files.
"""
