# SPDX-License-Identifier: Apache-2.0
"""Which implementation is chosen, and what is said about it. Each case in an interpreter of its own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SHOW = """
import warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    from deltaimg import kernels
    import deltaimg.kernels
print(kernels.NAME)
for warning in caught:
    print(warning.category.__name__, warning.message)
print(len(kernels.digest_blocks(bytes(32), bytes(8192), 4096)))
"""
BLOCK_NATIVE = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name == "deltaimg.kernels._native":
            raise ImportError("not built")
sys.meta_path.insert(0, Blocker())
"""


def run(script, forced=None):
    environment = {name: value for name, value in os.environ.items() if name != "DELTAIMG_KERNELS"}
    if forced is not None:
        environment["DELTAIMG_KERNELS"] = forced
    return subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False, timeout=60
    )


def test_without_the_extension_the_reference_is_used_with_one_warning():
    done = run(BLOCK_NATIVE + SHOW)
    name, warning, count = done.stdout.splitlines()
    assert (name, count) == ("reference", "2")
    assert warning.startswith("RuntimeWarning deltaimg runs without its native core (not built)")
    assert "C compiler" in warning


def test_a_big_endian_processor_gets_the_reference_with_one_warning():
    """Arrays cross into the native core as they lie in memory, and the formats' are little-endian."""
    name, warning, count = run("import numpy, sys; sys.byteorder = 'big'\n" + SHOW).stdout.splitlines()
    assert (name, count) == ("reference", "2")
    assert warning.startswith("RuntimeWarning deltaimg runs without its native core (arrays are little-endian, this")


def test_a_forced_native_fails_on_a_big_endian_processor():
    done = run("import numpy, sys; sys.byteorder = 'big'\n" + SHOW, forced="native")
    assert done.returncode != 0
    assert "arrays are little-endian, this processor is not" in done.stderr


def test_a_forced_reference_is_silent():
    assert run(SHOW, forced="reference").stdout.splitlines() == ["reference", "2"]


def test_a_forced_native_fails_without_the_extension():
    done = run(BLOCK_NATIVE + SHOW, forced="native")
    assert done.returncode != 0
    assert "not built" in done.stderr


def test_an_unknown_choice_is_refused():
    assert "DELTAIMG_KERNELS is 'fast'" in run(SHOW, forced="fast").stderr


def test_native_is_chosen_where_it_is_built():
    pytest.importorskip("deltaimg.kernels._native", reason="the native core is not built")
    name, count = run(SHOW).stdout.splitlines()
    assert name.startswith("native ")
    assert count == "2"


def test_the_package_itself_imports_no_kernels():
    assert run("import sys, deltaimg; print('deltaimg.kernels' in sys.modules)").stdout.strip() == "False"


def test_the_reference_does_without_the_blake3_package():
    script = "import sys; sys.modules['blake3'] = None\n" + SHOW
    assert run(script, forced="reference").stdout.splitlines() == ["reference", "2"]
