"""A takeover from the pins of other versions, with plain folders for pins."""

from __future__ import annotations

from pathlib import Path

from agent.datapath import takeover
from agent.datapath.folder import PinFolder


def version(root: Path, name: str) -> PinFolder:
    made = PinFolder(root / name)
    made.make()
    return made


def test_cgroups_of_all_versions_are_found_if_they_still_exist(tmp_path: Path) -> None:
    old, older = version(tmp_path, "v1"), version(tmp_path, "v2")
    tree = tmp_path / "cgroup"
    (tree / "a" / "b").mkdir(parents=True)
    inode = (tree / "a" / "b").stat().st_ino
    for each in (old, older):
        (each.ztunnels / str(inode)).mkdir()
    (old.ztunnels / str(2**60)).mkdir()  # its directory is gone
    assert takeover.ztunnel_cgroups([old, older], tree) == [tree / "a" / "b"]


def test_a_pod_that_is_not_wholly_pinned_is_left(tmp_path: Path) -> None:
    old, ours = version(tmp_path, "v1"), version(tmp_path, "v2")
    half = old.pods / "uid"
    half.mkdir()
    (half / "about").touch()
    takeover.take_pods([old], ours)
    assert ours.pod_folders() == []


def test_a_pod_without_a_record_is_nobody(tmp_path: Path) -> None:
    assert takeover.read_about(tmp_path) is None
