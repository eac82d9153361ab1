# SPDX-License-Identifier: Apache-2.0
"""Keys, and what is sealed with them. All of it is computed by `cryptography`, which is loaded where a key is used."""
