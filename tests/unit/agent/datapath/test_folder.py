"""The folder of pins, with plain files for pins."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.datapath import folder
from agent.datapath.errors import NoBpffs
from agent.datapath.folder import PinFolder


@pytest.fixture
def ours(tmp_path: Path) -> PinFolder:
    made = PinFolder(tmp_path / "v1")
    made.make()
    return made


def test_everything_in_it_goes(ours: PinFolder) -> None:
    (ours.links / "connect4").touch()
    (ours.maps / "pods").touch()
    for inner in (ours.pods / "uid", ours.ztunnels / "7"):
        inner.mkdir()
        (inner / "link").touch()
    assert [path.name for path in ours.pod_folders()] == ["uid"]
    assert [path.name for path in ours.ztunnel_folders()] == ["7"]
    ours.remove()
    assert not ours.path.exists()
    ours.remove()  # nothing left: nothing to do


def test_capture_goes_first(ours: PinFolder) -> None:
    for name in ("sockops", "getpeername4", "connect6", "connect4"):
        (ours.links / name).touch()
    order = [pin.name for pin in folder._pins(ours.links, first="connect")]
    assert order == ["connect4", "connect6", "getpeername4", "sockops"]


def test_only_versions_are_versions(tmp_path: Path, ours: PinFolder) -> None:
    (tmp_path / "other").mkdir()
    assert [version.path for version in folder.versions(tmp_path)] == [ours.path]
    assert folder.versions(tmp_path / "absent") == []


def test_a_pin_is_removed_once(tmp_path: Path) -> None:
    (tmp_path / "pin").touch()
    assert folder.unpin(tmp_path / "pin")
    assert not folder.unpin(tmp_path / "pin")


def test_pins_go_nowhere_but_on_a_bpffs(tmp_path: Path) -> None:
    with pytest.raises(NoBpffs), folder.prepared(tmp_path / "node"):
        pass
    assert not (tmp_path / "node").exists()
