"""Finding the tree and a process's descendants, from recorded files."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.datapath import cgroups
from agent.datapath.errors import NoCgroup2

PURE = "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\nproc /proc proc rw 0 0\n"
HYBRID = (
    "cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n"
    "cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0\n"
)


@pytest.mark.parametrize(
    ("mounts", "root"),
    [
        (PURE, "/sys/fs/cgroup"),
        (HYBRID, "/sys/fs/cgroup/unified"),
        ("none /mnt/c\\040group cgroup2 rw 0 0\n", "/mnt/c group"),
    ],
)
def test_the_cgroup2_mount_is_found(mounts: str, root: str) -> None:
    assert cgroups.find_root(mounts) == Path(root)


def test_a_machine_without_cgroup2_is_named() -> None:
    with pytest.raises(NoCgroup2) as refused:
        cgroups.find_root("cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n")
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


def test_a_directory_is_found_by_its_id(tmp_path: Path) -> None:
    wanted = tmp_path / "a" / "b"
    wanted.mkdir(parents=True)
    assert cgroups.find_by_id(tmp_path, cgroups.cgroup_id(wanted)) == wanted
    assert cgroups.find_by_id(tmp_path, 2**60) is None
