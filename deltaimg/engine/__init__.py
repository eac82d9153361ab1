# SPDX-License-Identifier: Apache-2.0
"""The verbs: what a user asks for, each a short story told by the layers below.

A folder begins in its `run.py`; other verbs in it have modules of their names. Folders of verbs do not know each other, but for
repair, which uses check and parity; what they share is in `content/`, and here.
"""
