"""The launch line of a process, and a wait that reports itself."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from agent.lab import process
from agent.lab.process import Launch, Patience, Process, script


def test_the_launch_line_survives_odd_words(tmp_path: Path) -> None:
    launch = Launch(
        ("sh", "-c", 'echo "it\'s" $HOME'),
        "ns",
        tmp_path,
        {},
        "/a b",
        mounts=(("/h", "/etc/hosts"),),
    )
    text = script(launch)
    assert text.startswith(
        f"echo $$ > {tmp_path}/cgroup.procs && exec nsenter --net=/run/netns/ns -- unshare"
    )
    inner = shlex.split(text.partition("exec ")[2])[-1]
    assert shlex.split(inner.rpartition("exec ")[2]) == list(launch.command)
    assert "cd '/a b'" in inner


def test_a_plain_process_needs_no_mount_namespace(tmp_path: Path) -> None:
    text = script(Launch(("true",), "ns", tmp_path, {}))
    assert "unshare" not in text
    user = script(Launch(("true",), "ns", tmp_path, {}, user="root"))
    assert "setpriv --reuid=root --regid=0 --init-groups" in user
    hidden = script(Launch(("true",), "ns", tmp_path, {}, tmpfs=("/var/x",)))
    assert "mount -t tmpfs -o mode=1777 tmpfs /var/x" in hidden


def test_a_process_is_known_by_its_start_time_too() -> None:
    start = process.start_of(os.getpid())
    assert start is not None
    assert process.alive(Process(os.getpid(), start))
    assert not process.alive(Process(os.getpid(), start + 1))
    assert not process.alive(Process(os.getpid(), 0))
    assert process.start_of(2**22 + 1) is None
    assert process.launched(Process(os.getpid(), start))


def test_patience_ends_after_its_time() -> None:
    told: list[str] = []
    assert Patience("it", -1.0, told.append).is_over()
    assert not Patience("it", 60.0, told.append).is_over()
    assert told == []


def test_members_of_a_cgroup_tree_are_seen_at_any_depth(tmp_path: Path) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    (inner / "cgroup.procs").write_text("")
    assert not process.has_members(tmp_path)
    (inner / "cgroup.procs").write_text("7\n")
    assert process.has_members(tmp_path)


def test_what_our_caller_left_open_is_not_passed_on() -> None:
    ends = os.pipe()
    try:
        assert not set(ends) & set(process.inherited())
        os.set_inheritable(ends[1], True)
        assert ends[1] in process.inherited()
    finally:
        for each in ends:
            os.close(each)


def test_the_cgroup_of_a_process_is_found_while_it_lives() -> None:
    start = process.start_of(os.getpid())
    assert start is not None
    found = process.cgroup_of(Process(os.getpid(), start))
    assert found is not None
    assert str(os.getpid()) in (found / "cgroup.procs").read_text().split()
    assert process.cgroup_of(Process(os.getpid(), start + 1)) is None
