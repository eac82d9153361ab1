# SPDX-License-Identifier: Apache-2.0
"""Real guests for the benchmarks: a Debian root with a running database, over six days."""
