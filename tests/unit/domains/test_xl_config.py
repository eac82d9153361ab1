# SPDX-License-Identifier: Apache-2.0
"""Configuration files of xl: read, never evaluated."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltaimg.domains.xl_config import parse_xl_config, read_settings
from deltaimg.errors import GuestUnusable

EXAMPLE = """\
# This is a comment
name = "web1"
memory = 192; vcpus = 0x2
extra = 'console=hvc0 "quiet" \\'x\\' \\x41\\101'   # another
vif = [ 'mac=00:16:3e:00:00:01,bridge=xenbr0',
        '', ]
nested = [ [ 1, 2 ], [], "a" ]
disk = [ 'phy:/dev/vg0/web1-root,xvda,w',
         # between
         'file:/srv/web1-data.img,xvdb,w',
         '/srv/install.iso,,hdc,cdrom',
       ]
disk += [ '/dev/vg0/web1-swap,,xvdd' ]
on_reboot = "destroy"
on_reboot = "restart"
"""


def test_settings_are_read_as_they_are_written() -> None:
    settings = read_settings(EXAMPLE, "web1")
    assert settings["memory"] == 192
    assert settings["vcpus"] == 2
    assert settings["extra"] == "console=hvc0 \"quiet\" 'x' AA"
    assert settings["vif"] == ["mac=00:16:3e:00:00:01,bridge=xenbr0", ""]
    assert settings["nested"] == [[1, 2], [], "a"]
    assert settings["on_reboot"] == "restart"
    assert len(settings["disk"]) == 4


def test_the_disks_of_a_file() -> None:
    name, disks = parse_xl_config(EXAMPLE, "web1")
    assert name == "web1"
    assert [(each.name, each.path, each.is_removable) for each in disks] == [
        ("xvda", "/dev/vg0/web1-root", False),
        ("xvdb", "/srv/web1-data.img", False),
        ("hdc", "/srv/install.iso", True),
        ("xvdd", "/dev/vg0/web1-swap", False),
    ]
    assert parse_xl_config("name='x'", "x") == ("x", ())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name = __import__('os')", "line 1"),
        ("name = 'a'\nimport os", "line 2"),
        ("name = 'a' + 'b'", "line 1"),
        ("name = 'a\n'", "line 1"),
        ("a = [", "line 1"),
        ("a = [[1, 2]\n\nb = 3", "'b'"),
        ("a = ]", "']'"),
        ("a = [1 2]", "'2'"),
        ("= 3", "'='"),
        ("a", "'a'"),
        ("a = 12x", "'12x'"),
        ("a = " + "[" * 20 + "]" * 20, "'['"),
        ("memory = 3", "has no name"),
        ("name = 'a'\ndisk = 3", "no list of strings"),
        ("name = 'a'\ndisk = [3]", "no list of strings"),
        ("name = ['a']", "has no name"),
    ],
)
def test_what_is_no_configuration_is_refused_by_its_line(text: str, said: str) -> None:
    with pytest.raises(GuestUnusable, match=r"configuration|disk") as caught:
        parse_xl_config(text, "web1")
    assert said in str(caught.value)


@given(st.text(alphabet="ab='\"[],+;#\\\n 0x", max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        read_settings(text, "web1")
    except GuestUnusable:
        return


def test_reading_takes_time_in_proportion() -> None:
    read_settings("a = [" + "'x'," * 100_000 + "]", "web1")
    with pytest.raises(GuestUnusable):
        read_settings("a = '" + "\\a" * 200_000, "web1")
