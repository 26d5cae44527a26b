"""The hook of the kubelet's probes where no kernel is asked, with plain folders for pins."""

from __future__ import annotations

from pathlib import Path

from agent.datapath import kubelet
from agent.datapath.folder import PinFolder
from agent.datapath.kubelet import KubeletHook
from agent.datapath.programs import Image


def test_a_version_that_never_had_it_leaves_nothing_to_take_over(tmp_path: Path) -> None:
    old = PinFolder(tmp_path / "v1")
    old.make()
    assert kubelet.found_on([old], tmp_path) is None


def test_it_is_on_no_cgroup_before_it_is_attached(tmp_path: Path) -> None:
    ours = PinFolder(tmp_path)
    ours.make()
    hook = KubeletHook(ours, Image("bcc 0", {}), {})
    assert hook.target() == 0
    hook.detach()
    assert hook.target() == 0
