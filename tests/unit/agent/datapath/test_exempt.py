"""Exemptions that died with their cgroup, with plain folders for pins."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

from agent.datapath.exempt import Exemptions
from agent.datapath.folder import PinFolder
from agent.datapath.programs import Image
from tests.support.kernel.memory_map import MemoryMap


def test_what_is_not_wholly_pinned_is_exempt_no_longer(tmp_path: Path) -> None:
    ours, table = PinFolder(tmp_path), MemoryMap(8, 1)
    ours.make()
    half = ours.ztunnels / "7"
    half.mkdir()
    (half / "getsockopt").touch()  # bind4 and the others were never attached
    for cgroup in (7, 8):  # not even the folder of the second one is left
        table.update(struct.pack("=Q", cgroup), b"\x01")
    maps: Any = {"exempt_cgroups": table}
    Exemptions(ours, Image("bcc 0", {}), maps).adopt({})
    assert list(table) == []
    assert ours.ztunnel_folders() == []


def test_a_cgroup_that_is_gone_can_be_removed_all_the_same(tmp_path: Path) -> None:
    ours, table = PinFolder(tmp_path), MemoryMap(8, 1)
    ours.make()
    maps: Any = {"exempt_cgroups": table}
    table.update(struct.pack("=Q", 8), b"\x01")
    Exemptions(ours, Image("bcc 0", {}), maps).remove(tmp_path / "absent")
    assert list(table) == []
