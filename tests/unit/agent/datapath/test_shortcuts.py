"""The shortcut's entries and pins, without a device."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

from agent.datapath import shortcuts
from bpf import layout
from tests.support.kernel.memory_map import MemoryMap


def test_a_pod_without_a_shortcut_has_none_to_detach(tmp_path: Path) -> None:
    shortcuts.detach(tmp_path, {})
    assert list(tmp_path.iterdir()) == []


def test_entries_of_a_device_that_goes_are_forgotten() -> None:
    table: Any = MemoryMap(8, ctypes.sizeof(layout.Shortcut))
    for number, (source, target) in enumerate([(3, 4), (4, 3), (5, 6)]):
        way = layout.Shortcut(source=source, target=target)
        table.update(number.to_bytes(8, "little"), bytes(way))
    shortcuts._forget(table, 4)
    assert [int.from_bytes(key, "little") for key in table] == [2]
