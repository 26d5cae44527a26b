"""Directories that a program may sit on, with plain folders for the cgroup2 tree."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.kubelet import place
from agent.kubelet.reasons import Unrecognised


def cgroup(root: Path, path: str, *pids: int) -> Path:
    made = root / path
    made.mkdir(parents=True, exist_ok=True)
    (made / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in pids))
    return made


@pytest.fixture
def root(tmp_path: Path) -> Path:
    tree = tmp_path / "cgroup"
    cgroup(tree, "", 1)
    cgroup(tree, "system.slice/kubelet.service", 7)
    cgroup(tree, "podruntime/kubelet", 8)
    cgroup(tree, "kubepods.slice/kubepods-burstable.slice/kubelet", 9)
    return tree


def test_a_program_sits_on_no_directory_that_holds_others(root: Path) -> None:
    assert place.unfit(root, root) is Unrecognised.ROOT_CGROUP
    assert place.unfit(root / "system.slice/kubelet.service", root) is None
    cgroup(root, "node/kubelet")
    cgroup(root, "node/kubelet-kubepods.slice/pod1")
    assert place.unfit(root / "node/kubelet", root) is None
    assert place.unfit(root / "node", root) is Unrecognised.HOLDS_PODS


def test_a_pods_cgroup_is_known_by_its_name_anywhere_in_the_path(root: Path) -> None:
    names = {"kubepods/burstable/pod1/x", "a/kubelet-kubepods.slice/b", "kubepods.slice"}
    assert all(place.is_of_pod(root / name, root) for name in names)
    assert not place.is_of_pod(root / "system.slice/kubelet.service", root)
