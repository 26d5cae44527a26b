"""The sweep: namespaces and ztunnels that vanished silently."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from agent import registry
from agent.enrol.facts import Facts
from agent.enrol.sweep import Sweep
from agent.registry import Registration
from tests.support.kernel.fake_datapath import FakeDatapath, FakeZtunnel
from tests.unit.agent.enrol.conftest import POD


@pytest.fixture
def cgroup(tmp_path: Path) -> Path:
    """A cgroup that an earlier run made for its ztunnel, now empty."""
    made = tmp_path / "tulle" / "n1" / "ztunnel-5"
    made.mkdir(parents=True)
    (made / "cgroup.procs").write_text("")
    return made


def test_a_pod_without_its_namespace_is_gone(facts: Facts, tmp_path: Path) -> None:
    facts.known.put(POD)
    facts.book.registered(POD.uid, POD.cookie, POD.addresses, True)
    asyncio.run(Sweep(facts, FakeDatapath(), tmp_path, "n1").sweep())
    assert facts.book.pods()[POD.uid].netns is None


def test_a_sweep_remembers_what_the_last_one_saw(
    facts: Facts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts.known.put(POD)
    facts.book.registered(POD.uid, POD.cookie, POD.addresses, True)
    answers: list[registry.Stamp | None] = [(7, 1), (7, 2), None]
    seen: list[registry.Stamp | None] = []

    def stamp(_: Registration, last: registry.Stamp | None) -> registry.Stamp | None:
        seen.append(last)
        return answers[len(seen) - 1]

    monkeypatch.setattr(registry, "stamp", stamp)
    monkeypatch.setattr(registry, "find", lambda _: {})
    sweep = Sweep(facts, FakeDatapath(), tmp_path, "n1")
    for _ in answers:
        asyncio.run(sweep.sweep())
    assert seen == [None, (7, 1), (7, 2)]
    assert facts.book.pods()[POD.uid].netns is None


def test_an_empty_cgroup_loses_its_exemption(facts: Facts, tmp_path: Path, cgroup: Path) -> None:
    datapath = FakeDatapath()
    datapath.exempted.add(cgroup)
    sweep = Sweep(facts, datapath, tmp_path, "n1")
    (cgroup / "cgroup.procs").write_text(f"{os.getpid()}\n")
    asyncio.run(sweep.sweep())
    assert datapath.exempted == {cgroup}  # a process lives in it
    (cgroup / "cgroup.procs").write_text("")
    datapath.refuses = True
    asyncio.run(sweep.sweep())
    assert datapath.exempted == {cgroup}  # and is tried again
    datapath.refuses = False
    asyncio.run(sweep.sweep())
    assert datapath.exempted == set()


def test_a_cgroup_of_a_connected_ztunnel_is_only_looked_at(
    facts: Facts, tmp_path: Path, cgroup: Path
) -> None:
    datapath = FakeDatapath()
    own = tmp_path / "own"
    datapath.exempted |= {cgroup, own}
    sweep = Sweep(facts, datapath, tmp_path, "n1")
    sweep.exempted(own)  # removed by whoever made it
    ztunnel = FakeZtunnel(7, pid=os.getpid())
    facts.ztunnels[7] = ztunnel  # type: ignore[assignment]  # as much of one as is needed
    (cgroup / "cgroup.procs").write_text(f"{os.getpid()}\n")
    asyncio.run(sweep.sweep())
    assert datapath.exempted == {cgroup}
