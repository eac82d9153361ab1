# SPDX-License-Identifier: Apache-2.0
"""`python -m deltaimg` is the command `deltaimg`."""

from deltaimg.cli import main

main()
