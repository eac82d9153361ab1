# SPDX-License-Identifier: Apache-2.0
"""What changed, and against what it is stored."""
