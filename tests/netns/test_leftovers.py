"""The look for leftovers finds each kind of thing that a test may leave, and only what is new."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from agent.datapath import bpffs, cgroups
from tests.support.kernel import leftovers
from tests.support.kernel.netns import Network, Process, need_root


@pytest.fixture
def before() -> Iterator[frozenset[str]]:
    need_root()
    seen = leftovers.look()
    yield seen
    assert leftovers.left(seen) == []


def kinds(before: frozenset[str]) -> list[str]:
    return sorted({line.split()[0] for line in leftovers.left(before, wait_s=0.0)})


def test_a_namespace_is_found(before: frozenset[str]) -> None:
    with Network("tk"):
        assert "namespace" in kinds(before)


def test_a_pin_and_a_cgroup_are_found(before: frozenset[str]) -> None:
    pin = bpffs.ensure(leftovers.PINS) / "tk-leftover"
    cgroup = cgroups.create(cgroups.find_root() / "tk-leftover")
    pin.mkdir()
    try:
        assert kinds(before) == ["cgroup", "pin"]
    finally:
        pin.rmdir()
        cgroups.remove(cgroup)


def test_a_pin_of_another_run_is_its_own_as_long_as_it_goes_on(before: frozenset[str]) -> None:
    pin = bpffs.ensure(leftovers.PINS) / f"tk-{os.getppid()}-1"
    gone = leftovers.PINS / f"tk-{2**22}-1"  # beyond every process
    pin.mkdir()
    try:
        assert kinds(before) == []
        gone.mkdir()
        assert kinds(before) == ["pin"]
    finally:
        gone.rmdir()
        pin.rmdir()


@pytest.mark.parametrize("name", ["tk-{}-1", "tk-{}", "te{}a", "tl-te{}x-te{}a", "t{}", "m{}b"])
def test_a_namespace_of_another_run_is_its_own(name: str) -> None:
    mine, theirs, gone = os.getpid(), os.getppid(), 2**22
    for pid, is_seen in ((mine, True), (theirs, False), (gone, True)):
        for number in (pid, pid % leftovers.SHORT_PIDS):
            thing = f"namespace /run/netns/{name.format(number, number)}"
            if number != gone % leftovers.SHORT_PIDS:  # somebody may have that one
                assert leftovers._is_of_another_run(thing) is not is_seen, thing


def test_a_child_is_found(before: frozenset[str]) -> None:
    with Process():
        assert kinds(before) == ["process"]


def test_an_orphan_is_found(before: frozenset[str]) -> None:
    """A process whose parent has ended: it reads a pipe that this test holds."""
    sleeper = (
        f"import subprocess, sys; subprocess.Popen([{sys.executable!r}, '-S', '-c', 'input()'])"
    )
    child = subprocess.Popen(
        [sys.executable, "-S", "-c", sleeper],
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    with child:
        child.wait(10)
        assert kinds(before) == ["process"]


def test_a_run_folder_is_found(before: frozenset[str]) -> None:
    folder = leftovers.RUN / "leftover"
    folder.mkdir(parents=True)
    try:
        assert kinds(before) == ["folder"]
    finally:
        folder.rmdir()


def test_a_cgroup_of_a_lab_is_found(before: frozenset[str]) -> None:
    holder = cgroups.find_root() / "tulle-lab"
    holder.mkdir(exist_ok=True)
    assert kinds(before) == [], "the folder of all labs"
    (holder / "leftover").mkdir()
    try:
        assert kinds(before) == ["cgroup"]
    finally:
        (holder / "leftover").rmdir()


def test_a_thing_that_goes_by_itself_is_waited_for() -> None:
    looks = iter([frozenset({"pin a", "pin b"}), frozenset({"pin a"})])
    assert leftovers.left(frozenset({"pin a"}), look=lambda: next(looks)) == []
