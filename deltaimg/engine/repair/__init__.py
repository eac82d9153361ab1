# SPDX-License-Identifier: Apache-2.0
"""A damaged repository made whole: what is stored proved itself by its name or its id, and nothing is deleted, only moved."""
