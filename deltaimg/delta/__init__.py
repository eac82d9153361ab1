# SPDX-License-Identifier: Apache-2.0
"""Finding what changed, choosing delta sources, encoding records."""
