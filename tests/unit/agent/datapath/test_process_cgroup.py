"""A process's cgroup directory, with plain folders for /proc and the cgroup2 tree."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.datapath import process_cgroup
from agent.datapath.process_cgroup import directory_of


def cgroup(root: Path, path: str, *pids: int) -> Path:
    made = root / path
    made.mkdir(parents=True, exist_ok=True)
    (made / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in pids))
    return made


def says(processes: Path, pid: int, text: str) -> None:
    folder = processes / str(pid)
    folder.mkdir(parents=True)
    (folder / "cgroup").write_text(text)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    tree = tmp_path / "cgroup"
    cgroup(tree, "", 1)
    cgroup(tree, "system.slice/kubelet.service", 7)
    cgroup(tree, "podruntime/kubelet", 8)
    cgroup(tree, "kubepods.slice/kubepods-burstable.slice/kubelet", 9)
    return tree


@pytest.mark.parametrize(
    ("pid", "said", "found"),
    [
        (7, "0::/system.slice/kubelet.service\n", "system.slice/kubelet.service"),
        (
            7,
            "1:name=systemd:/x\n0::/system.slice/kubelet.service\n",
            "system.slice/kubelet.service",
        ),
        (8, "0::/../kubelet\n", "podruntime/kubelet"),  # read in a cgroup namespace
        (9, "0::/../../kubelet\n", "kubepods.slice/kubepods-burstable.slice/kubelet"),
        (7, "0::/../..\n", "system.slice/kubelet.service"),  # it is in an ancestor of ours
        (8, "0::/kubelet\n", "podruntime/kubelet"),  # the mount shows more than the namespace
        (1, "0::/\n", ""),
        (7, "0::/../nowhere\n", None),
        (6, "0::/system.slice/kubelet.service\n", None),  # it is another kubelet's
    ],
)
def test_the_directory_is_the_one_that_holds_the_process(
    tmp_path: Path, root: Path, pid: int, said: str, found: str | None
) -> None:
    processes = tmp_path / "proc"
    says(processes, pid, said)
    expected = None if found is None else root / found
    assert directory_of(pid, root, processes) == expected


def test_a_process_that_is_gone_is_an_error_of_the_system(tmp_path: Path, root: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        directory_of(7, root, tmp_path / "proc")


def test_a_search_has_an_end(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    says(tmp_path / "proc", 8, "0::/../kubelet\n")
    monkeypatch.setattr(process_cgroup, "DIRECTORIES_MAX", 2)
    assert directory_of(8, root, tmp_path / "proc") is None
