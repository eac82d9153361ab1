# SPDX-License-Identifier: Apache-2.0
"""One night of one image: nothing refers to what is not durable, and the manifest, which comes last, is the commit."""
