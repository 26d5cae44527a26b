"""Finding the tree and a process's descendants, from recorded files."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from agent.datapath import cgroups
from agent.datapath.errors import NoCgroup2

PURE = (
    "32 23 0:28 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw\n"
    "22 1 0:5 / /proc rw - proc proc rw\n"
)
HYBRID = (
    "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
    "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n"
)
OWN = "50 40 0:28 /kubepods/pod1/agent /sys/fs/cgroup ro - cgroup2 cgroup ro\n"
HOST = "60 40 0:28 / /host/sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
# The same two, seen from the container's cgroup namespace.
OWN_INSIDE = OWN.replace("/kubepods/pod1/agent", "/")
HOST_INSIDE = HOST.replace(" / /host", " /../../.. /host")


@pytest.mark.parametrize(
    ("mountinfo", "root"),
    [
        (PURE, "/sys/fs/cgroup"),
        (HYBRID, "/sys/fs/cgroup/unified"),
        ("9 1 0:28 / /mnt/c\\040group rw - cgroup2 none rw\n", "/mnt/c group"),
        (OWN + HOST, "/host/sys/fs/cgroup"),
        (HOST + OWN, "/host/sys/fs/cgroup"),
        (OWN_INSIDE + HOST_INSIDE, "/host/sys/fs/cgroup"),
    ],
)
def test_the_cgroup2_mount_of_the_whole_tree_is_found(mountinfo: str, root: str) -> None:
    assert cgroups.find_root(mountinfo) == Path(root)
    assert cgroups.is_whole(Path(root), mountinfo)


def test_a_container_with_its_own_part_alone_does_not_see_the_whole() -> None:
    assert cgroups.find_root(OWN) == Path("/sys/fs/cgroup")
    assert not cgroups.is_whole(Path("/sys/fs/cgroup"), OWN)
    over_it = HOST.replace("/host/sys", "/sys")  # the host's, mounted on the same place
    assert cgroups.is_whole(cgroups.find_root(OWN + over_it), OWN + over_it)


def test_a_namespace_that_cannot_be_seen_is_not_entered(tmp_path: Path) -> None:
    assert not cgroups.enter_host_namespace(tmp_path)


def test_a_machine_without_cgroup2_is_named() -> None:
    for mountinfo in ("", "garbled\n", "1 2 - \n", HYBRID.splitlines()[0]):
        with pytest.raises(NoCgroup2) as refused:
            cgroups.find_root(mountinfo)
        assert refused.value.reason == "cgroup2_missing"


def test_descendants_are_all_below_and_nobody_else(tmp_path: Path) -> None:
    parents = {10: 1, 11: 10, 12: 11, 13: 11, 20: 1, 21: 20}
    for pid, parent in parents.items():
        (tmp_path / str(pid)).mkdir()
        # A command name may hold blanks and brackets.
        (tmp_path / str(pid) / "stat").write_text(f"{pid} (a) b (c) S {parent} 0 0\n")
    (tmp_path / "self").mkdir()
    (tmp_path / "30").mkdir()  # ended between listing and reading
    assert cgroups.descendants(10, tmp_path) == {10, 11, 12, 13}
    assert cgroups.descendants(21, tmp_path) == {21}


def test_a_process_may_call_itself_as_it_likes(tmp_path: Path) -> None:
    """Else any process of a node, in any pod, could end the agent that looks at all of them."""
    for pid, name in ((10, b"x"), (11, b"\xff) S 7 (\xfe\n")):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "stat").write_bytes(b"%d (%s) S 10 10 10" % (pid, name))
    assert cgroups.descendants(10, tmp_path) == {10, 11}


def test_a_process_has_a_start_and_one_that_is_not_seen_starts_now(tmp_path: Path) -> None:
    parent, child = os.getppid(), os.getpid()
    assert 0 < cgroups.started_ticks(1) <= cgroups.started_ticks(parent)
    assert cgroups.started_ticks(parent) <= cgroups.started_ticks(child) < sys.maxsize
    assert cgroups.started_ticks(0) == sys.maxsize
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "stat").write_text("7 (a) b")
    assert cgroups.started_ticks(7, tmp_path) == sys.maxsize


def test_a_directory_is_found_by_its_id(tmp_path: Path) -> None:
    wanted = tmp_path / "a" / "b"
    wanted.mkdir(parents=True)
    assert cgroups.find_by_id(tmp_path, cgroups.cgroup_id(wanted)) == wanted
    assert cgroups.find_by_id(tmp_path, 2**60) is None
