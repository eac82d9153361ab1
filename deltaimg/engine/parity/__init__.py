# SPDX-License-Identifier: Apache-2.0
"""Reed-Solomon parity over packs: nothing else depends on it, and what it recovers is verified by the name of the pack."""
