# SPDX-License-Identifier: Apache-2.0
"""What no snapshot needs goes: the only part that deletes content, and only what was listed, waited for and looked at twice."""
