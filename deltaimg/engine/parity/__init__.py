# SPDX-License-Identifier: Apache-2.0
"""Reed-Solomon parity over packs: nothing else needs it, and it gives back only bytes that the name of a pack promises."""
