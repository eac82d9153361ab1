# SPDX-License-Identifier: Apache-2.0
"""Which snapshots stay, and what each stands on: a manifest changes in one step, and no content goes; that is for prune."""
