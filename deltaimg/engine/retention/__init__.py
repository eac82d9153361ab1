# SPDX-License-Identifier: Apache-2.0
"""Which snapshots are kept, and what each depends on. Manifests change atomically; content is deleted by prune only."""
