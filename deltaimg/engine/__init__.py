# SPDX-License-Identifier: Apache-2.0
"""The verbs: what a user asks for, each a short story told by the layers below."""
