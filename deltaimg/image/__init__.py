# SPDX-License-Identifier: Apache-2.0
"""Where an image's bytes come from and where they go."""
