# SPDX-License-Identifier: Apache-2.0
"""Options, each defined once: name, type, default, help and validation, for the command line and the Python interface alike.

A verb's options are a frozen dataclass in a module of its name. Nothing here loads more than the standard library, so that
help is shown at once.
"""
