"""The cgroup that a ztunnel may keep, read from files laid out as in /proc."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.enrol import ztunnel_cgroup
from tests.support.descriptors import no_descriptors


def test_an_empty_or_removed_cgroup_is_over(tmp_path: Path) -> None:
    (tmp_path / "cgroup.procs").write_text("12\n")
    assert not ztunnel_cgroup.is_over(tmp_path)
    with no_descriptors():
        assert not ztunnel_cgroup.is_over(tmp_path)  # nobody could look
    (tmp_path / "cgroup.procs").write_text("")
    assert ztunnel_cgroup.is_over(tmp_path)
    assert ztunnel_cgroup.is_over(tmp_path / "gone")


def test_only_our_own_cgroups_are_removed(tmp_path: Path) -> None:
    ours = tmp_path / "tulle" / "n1" / "ztunnel-5"
    theirs = tmp_path / "kubepods"
    ours.mkdir(parents=True)
    theirs.mkdir()
    assert ztunnel_cgroup.leftovers(tmp_path, "n1") == [ours]
    ztunnel_cgroup.remove(tmp_path, "n1", theirs)
    ztunnel_cgroup.remove(tmp_path, "n1", ours)
    assert theirs.exists()
    assert not ours.exists()


@pytest.mark.parametrize(
    ("folder", "stays"),
    [
        ("kubepods/besteffort/pod95c8fcf2-e103-42ca-8599-4f2e296b5be3/7f2d05", True),
        (
            "kubepods.slice/kubepods-burstable-pod95c8fcf2_e103_42ca_8599_4f2e296b5be3.slice"
            "/cri-containerd-7f2d05.scope",
            True,
        ),
        ("kubepods/besteffort", False),
        ("system.slice/pod-runner.service", False),
        ("user.slice/podman/7f2d05", False),
    ],
)
def test_a_pods_container_keeps_its_cgroup_beside_a_probe(
    tmp_path: Path, folder: str, stays: bool
) -> None:
    assert ztunnel_cgroup._is_container(tmp_path / folder) is stays
