# SPDX-License-Identifier: Apache-2.0
"""Change tracking: what of an image need not be read, because something claims that it is as it was in the base."""
