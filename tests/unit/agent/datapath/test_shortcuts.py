"""The shortcut's entries and pins, without a device."""

from __future__ import annotations

import ctypes
import errno
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.datapath import shortcuts
from agent.datapath.errors import DatapathError
from agent.datapath.folder import PinFolder
from agent.datapath.pods import CapturedPod
from agent.datapath.shortcuts import MadeShortcut, Shortcuts
from bpf import layout
from tests.support.kernel.memory_map import MemoryMap


def test_a_pod_without_a_shortcut_has_none_to_detach(tmp_path: Path) -> None:
    shortcuts.detach(tmp_path, {})
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def table() -> Any:
    """Two entries of device 4, one without it."""
    made = MemoryMap(8, ctypes.sizeof(layout.Shortcut))
    for number, (source, target) in enumerate([(3, 4), (4, 3), (5, 6)]):
        way = layout.Shortcut(source=source, target=target)
        made.update(number.to_bytes(8, "little"), bytes(way))
    return made


def test_entries_of_a_device_that_goes_are_forgotten(table: Any) -> None:
    shortcuts._forget(table, 4)
    assert [int.from_bytes(key, "little") for key in table] == [2]


def test_the_kernel_is_not_asked_for_a_device_that_is_known(table: Any, tmp_path: Path) -> None:
    (tmp_path / "shortcut").touch()  # no link: whoever asks it fails
    shortcuts.detach(tmp_path, {"shortcuts": table}, 4)
    assert list(tmp_path.iterdir()) == []
    assert len(list(table)) == 1


class Link:
    """A link that a thread has made."""

    closed = False

    def pin(self, path: Path) -> None:
        path.touch()

    def close(self) -> None:
        self.closed = True


POD = CapturedPod("uid", 8, (bytes(4),), workload_id=1)


def finished(root: Path, made: MadeShortcut, *captured: CapturedPod) -> list[CapturedPod]:
    """The pods of which another state came out."""
    changed: list[CapturedPod] = []
    pins = PinFolder(root)
    (pins.pods / "uid").mkdir(parents=True)
    image: Any = None
    kept = Shortcuts(image, {}, pins, {pod.uid: pod for pod in captured}, changed.append)
    kept.finish("uid", made)
    return changed


def test_a_link_counts_once_it_is_pinned(tmp_path: Path) -> None:
    link: Any = Link()
    made = MadeShortcut(8, 4, 0, link)
    assert finished(tmp_path, made, POD) == [replace(POD, device=4)]
    assert (tmp_path / "pods/uid/shortcut").exists()
    made.close()
    assert link.closed


def test_a_pin_that_goes_while_it_is_looked_at_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(path: Path) -> Any:
        raise DatapathError("open", errno.ENOENT)

    (tmp_path / "shortcut").touch()
    monkeypatch.setattr(shortcuts.Link, "open", gone)
    assert shortcuts.device_at(tmp_path) == 0


def test_a_pod_in_another_namespace_gets_nothing_of_it(tmp_path: Path) -> None:
    link: Any = Link()
    assert finished(tmp_path, MadeShortcut(7, 4, 0, link), POD) == []
    assert not (tmp_path / "pods/uid/shortcut").exists()


def test_a_pod_without_a_veth_has_none(tmp_path: Path) -> None:
    made = MadeShortcut(8, 0, 0, None)
    assert finished(tmp_path, made, POD) == []
    made.close()


def test_one_that_is_there_is_counted_on_as_it_is(tmp_path: Path) -> None:
    assert finished(tmp_path, MadeShortcut(8, 4, 4, None), POD) == [replace(POD, device=4)]
