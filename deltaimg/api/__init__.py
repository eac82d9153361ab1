# SPDX-License-Identifier: Apache-2.0
"""The Python interface, which the command line calls, too: places and selectors in, manifests and readers out.

A module for each thing that one comes for, so that a program loads what it uses and no more; `import deltaimg` finds all of it.
Every function may raise `DeltaimgError`; its classes are in `deltaimg.errors`.
"""
