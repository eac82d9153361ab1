# SPDX-License-Identifier: Apache-2.0
"""Results of verbs as objects for programs (JSON) and as words for people; for the command line and for reports."""
