# SPDX-License-Identifier: Apache-2.0
"""Build `deltaimg.kernels._native` from the C core, in cffi's API mode.

Reads   `native/include/dimg_api.h`, the whole C API, as the declarations; `native/src/*/*.c` as the sources.
Always  The extension is optional: where it cannot be built, installing goes on and deltaimg uses its Python reference.
        No flag names a processor: the code chooses its path when it runs.
"""

from __future__ import annotations

import os
from pathlib import Path

from cffi import FFI

NATIVE = Path(__file__).resolve().parent
# setuptools wants the paths of sources relative to setup.py, from whose folder it always builds.
SOURCES = sorted(path.relative_to(NATIVE.parent).as_posix() for path in NATIVE.glob("src/*/*.c"))
HEADERS = sorted(path.relative_to(NATIVE.parent).as_posix() for path in NATIVE.glob("**/*.h"))
FLAGS = [] if os.name == "nt" else ["-std=c11", "-O3", "-fvisibility=hidden", "-Wall", "-Wextra"]

ffibuilder = FFI()
ffibuilder.cdef((NATIVE / "include" / "dimg_api.h").read_text(encoding="utf-8"))
ffibuilder.set_source(
    "deltaimg.kernels._native",
    '#include "dimg.h"',
    sources=SOURCES,
    depends=HEADERS,
    include_dirs=["native/include"],
    extra_compile_args=FLAGS,
    optional=True,
)
