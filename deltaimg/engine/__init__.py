# SPDX-License-Identifier: Apache-2.0
"""The verbs: what a user asks for, each a short sequence of calls to the layers below.

A folder begins in its `run.py`; other verbs in it have modules of their names. Folders of verbs do not import each other,
except repair, which uses check and parity; what they share is in `content/`, and here.
"""
