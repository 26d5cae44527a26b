"""Pods by their processes, in a /proc of our own making."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.cri.processes import inhabited, pod_of, pods

UID = "95c8fcf2-e103-42ca-8599-4f2e296b5be3"


@pytest.mark.parametrize(
    "path",
    [
        f"/kubepods/besteffort/pod{UID}/7f2d05",
        f"/k8s-n1-pods/kubepods/besteffort/pod{UID}",
        f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID.replace('-', '_')}"
        ".slice/cri-containerd-7f2d05.scope",
        f"/kubepods.slice/kubepods-pod{UID.replace('-', '_')}.slice/crio-7f2d05.scope",
        f"/../../kubepods/pod{UID}/7f2d05",
    ],
)
def test_a_pod_is_known_by_its_cgroup(path: str) -> None:
    assert pod_of(f"0::{path}\n") == UID
    assert pod_of(f"5:memory:{path}\n0::/\n") == UID


def test_so_is_a_static_pod_whose_uid_is_a_hash() -> None:
    static = UID.replace("-", "")
    assert pod_of(f"0::/kubepods/besteffort/pod{static}/7f2d05\n") == static
    assert pod_of(f"0::/kubepods.slice/kubepods-pod{static}.slice/crio-7f.scope\n") == static


@pytest.mark.parametrize(
    "path", ["/", "/system.slice/kubelet.service", f"/podx{UID}/7", f"/pod{UID}x/7", "/pod1/2"]
)
def test_others_are_no_pods(path: str) -> None:
    assert pod_of(f"0::{path}\n") is None


def process(proc: Path, pid: int, netns: Path, cgroup: str) -> None:
    (proc / str(pid) / "ns").mkdir(parents=True)
    (proc / str(pid) / "ns" / "net").hardlink_to(netns)
    (proc / str(pid) / "cgroup").write_text(f"0::{cgroup}\n")


def test_a_pod_is_found_in_a_namespace_of_its_own(tmp_path: Path) -> None:
    host, own = tmp_path / "host", tmp_path / "own"
    host.touch(), own.touch()
    proc = tmp_path / "proc"
    process(proc, 1, host, "/init.scope")
    process(proc, 12, own, f"/kubepods/pod{UID}/b")
    process(proc, 9, own, f"/kubepods/pod{UID}/a")
    process(proc, 10, host, "/kubepods/pod11111111-2222-3333-4444-555555555555/host-network")
    (proc / "net").mkdir()
    (proc / "77").mkdir()  # ended while we looked
    assert pods(proc) == {UID: str(proc / "9" / "ns" / "net")}
    inode = os.stat(own).st_ino
    assert inhabited([inode, 5], proc) == {inode}
    assert inhabited([], tmp_path / "absent") == set()
