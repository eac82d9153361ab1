# SPDX-License-Identifier: Apache-2.0
"""How the benchmarks measure: processes, backups, restores, results and what they must reach."""
