# SPDX-License-Identifier: Apache-2.0
"""Mirror: a plain copy of an image kept current on this or another host."""
