"""Mappings that may be handed back: code of files, and nothing that was ever written."""

from __future__ import annotations

import json

from control.kit.memory import code_mappings, settle

MAPS = """\
55d0c0000000-55d0c0001000 r--p 00000000 fe:01 1 /usr/bin/python3
55d0c0001000-55d0c0003000 r-xp 00001000 fe:01 1 /usr/bin/python3
55d0c0003000-55d0c0004000 rw-p 00003000 fe:01 1 /usr/bin/python3
7f0000000000-7f0000002000 r-xp 00000000 fe:01 2 /usr/lib/with a space.so (deleted)
7f0000100000-7f0000102000 rwxp 00000000 fe:01 2 /usr/lib/jit.so
7f0000200000-7f0000202000 r-xp 00000000 00:00 0
7fff00000000-7fff00001000 r-xp 00000000 00:00 0 [vdso]
"""


def test_only_code_of_files_is_handed_back() -> None:
    assert list(code_mappings(MAPS)) == [
        (0x55D0C0001000, 0x55D0C0003000),
        (0x7F0000000000, 0x7F0000002000),
    ]


def test_the_process_goes_on_as_before() -> None:
    settle()
    assert json.loads("[1]") == [1]
