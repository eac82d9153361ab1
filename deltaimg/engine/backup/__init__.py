# SPDX-License-Identifier: Apache-2.0
"""One backup of one image: an object is stored after all that it refers to; the manifest, the last one, is the commit."""
