"""Mappings that may be handed back: of files, and nothing that was ever written."""

from __future__ import annotations

import gc
import json
import mmap
from pathlib import Path

import pytest

from control.kit.memory import release, settle, uncollected, unwritten_mappings

SMAPS = b"""\
55d0c0000000-55d0c0001000 r--p 00000000 fe:01 1                          /usr/bin/python3
Size:                  4 kB
Private_Dirty:         0 kB
Anonymous:             0 kB
VmFlags: rd mr mw me
55d0c0001000-55d0c0003000 r-xp 00001000 fe:01 1                          /usr/bin/python3
Anonymous:             0 kB
55d0c0003000-55d0c0004000 rw-p 00003000 fe:01 1                          /usr/bin/python3
Anonymous:             0 kB
55d0c0004000-55d0c0005000 r--p 00003000 fe:01 1                          /relocated.so
Anonymous:             4 kB
7f0000000000-7f0000002000 r-xp 00000000 fe:01 2      /usr/lib/with a space.so (deleted)
Anonymous:             0 kB
7f0000100000-7f0000102000 rwxp 00000000 fe:01 2      /usr/lib/jit.so
Anonymous:             0 kB
7f0000200000-7f0000202000 r-xp 00000000 00:00 0
Anonymous:             0 kB
7f0000300000-7f0000302000 r--s 00000000 fe:01 3      /shared
Anonymous:             0 kB
7fff00000000-7fff00001000 r-xp 00000000 00:00 0      [vdso]
Anonymous:             0 kB
"""


def test_only_what_is_equal_to_its_file_is_handed_back() -> None:
    assert list(unwritten_mappings(SMAPS)) == [
        (0x55D0C0000000, 0x55D0C0001000),
        (0x55D0C0001000, 0x55D0C0003000),
        (0x7F0000000000, 0x7F0000002000),
    ]


def test_pages_of_a_file_go_and_the_process_goes_on_as_before(tmp_path: Path) -> None:
    path = tmp_path / "constants"
    path.write_bytes(b"x" * mmap.PAGESIZE)
    with path.open("rb") as file:
        kept = mmap.mmap(file.fileno(), mmap.PAGESIZE, mmap.MAP_PRIVATE, mmap.PROT_READ)
    with kept:
        assert kept[:1] == b"x"
        assert resident_kib(path) == mmap.PAGESIZE // 1024
        settle()
        assert resident_kib(path) == 0
        assert kept[:1] == b"x"
    assert json.loads("[1]") == [1]


def test_what_is_made_uncollected_stays_unexamined() -> None:
    gc.unfreeze()
    with uncollected():
        assert not gc.isenabled()
        made = [list[int]() for _ in range(1000)]
    assert gc.isenabled()
    assert gc.get_freeze_count() >= len(made)
    assert not any(each is made for each in gc.get_objects())
    gc.unfreeze()


def test_a_release_does_not_look_at_more_objects_than_it_may() -> None:
    """Everybody stands still while it does."""
    gc.unfreeze()
    looked: list[int] = []

    def collected(phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            looked.append(info["generation"])

    made = [list[int]() for _ in range(1000)]
    gc.collect()
    aged = len(gc.get_objects(generation=2))
    gc.callbacks.append(collected)
    try:
        release(aged_max=10 * aged)
        assert (looked.count(2), gc.get_freeze_count()) == (1, 0)
        release(aged_max=len(made))
        assert looked.count(2) == 1
        assert gc.get_freeze_count() >= len(made)
    finally:
        gc.callbacks.remove(collected)
        gc.unfreeze()


def test_the_collector_comes_back_whatever_happens() -> None:
    with pytest.raises(OSError), uncollected():
        raise OSError
    assert gc.isenabled()


def resident_kib(path: Path) -> int:
    """Memory of this process that is a mapping of the file."""
    _, _, mapping = Path("/proc/self/smaps").read_text().partition(str(path))
    return int(mapping.partition("Rss:")[2].split()[0])
