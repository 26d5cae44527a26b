"""The follower: what a runtime's answers and events do to the registrations.

Namespaces need root: `tests/netns/agent/test_runtime.py` registers real ones.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.cri import follow
from agent.cri.client import connected
from agent.cri.follow import RuntimeFollower
from agent.enrol.enroller import Enroller, Host
from agent.enrol.plan import Capture
from agent.registry import Registration, Registry
from control.model.intent import Intent
from tests.support.clock import FakeClock
from tests.support.kernel.agent_bed import eventually
from tests.support.kernel.fake_datapath import FakeDatapath, FakeDirect
from tests.support.kube.cri import FakeRuntime, FakeSandbox
from tests.unit.agent.agent_example import ADDRESS, intent

WEB = FakeSandbox(uid="u1", name="web", netns="/run/netns/tulle-absent")


class Bed:
    """A node with one pod that is registered, captured and expected."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.proc = folder / "proc"
        self.proc.mkdir()
        self.runtime = FakeRuntime()
        self.web = self.runtime.put(WEB)
        self.synced = True
        known = Registry(folder / "state")
        known.load()
        self.enroller = Enroller(
            Host("n1", folder, 2.0), FakeDatapath(), known, FakeClock(), FakeDirect()
        )
        self.registration = Registration(
            "u1", "shop", "web", "/absent", 7, 8, "", (ADDRESS,), self.web.id
        )
        self.enroller.register(self.registration)
        self.hear({"u1": intent("u1", "web")})
        self.enroller.facts.book.adopted("u1", Capture(8, (ADDRESS,)))
        self.follower = RuntimeFollower(
            self.enroller, lambda: self.synced, FakeClock(), [folder / "s"], self.proc
        )

    def hear(self, fresh: dict[str, Intent], removed: tuple[str, ...] = ()) -> None:
        self.enroller.intents_changed(fresh, removed)

    def lives(self, inode_of: Path) -> None:
        (self.proc / "9" / "ns").mkdir(parents=True)
        (self.proc / "9" / "ns" / "net").hardlink_to(inode_of)

    def is_registered(self, uid: str = "u1") -> bool:
        pod = self.enroller.facts.book.pods().get(uid)
        return pod is not None and pod.netns is not None


def look(bed: Bed, *steps: Callable[[], Any]) -> None:
    """Look, and again after each step."""

    async def scenario() -> None:
        async with bed.runtime.serving(bed.folder / "s"), connected([bed.folder / "s"]) as client:
            await bed.follower.look(client)
            for step in steps:
                step()
                await bed.follower.look(client)

    asyncio.run(scenario())


def test_a_registered_pod_costs_no_call(tmp_path: Path) -> None:
    bed = Bed(tmp_path)
    look(bed)
    assert bed.runtime.calls == ["Version", "ListPodSandbox"]
    assert bed.follower.link.sandboxes == 1


@pytest.mark.parametrize("way", ["stop", "remove"])
def test_a_sandbox_that_ends_releases_its_pod(tmp_path: Path, way: str) -> None:
    bed = Bed(tmp_path)
    look(bed, lambda: getattr(bed.runtime, way)(bed.web))
    assert not bed.is_registered()
    assert bed.follower.link.released == 1


@pytest.mark.parametrize("is_wanted", [True, False])
def test_a_pod_stays_while_a_process_lives_in_its_namespace(
    tmp_path: Path, is_wanted: bool
) -> None:
    bed = Bed(tmp_path)
    if not is_wanted:
        bed.hear({}, ("u1",))  # deleted by force
    netns = tmp_path / "netns"
    netns.touch()
    bed.registration = replace(bed.registration, inode=os.stat(netns).st_ino)
    bed.enroller.register(bed.registration)
    bed.lives(netns)
    look(bed, lambda: bed.runtime.stop(bed.web), lambda: None)
    assert bed.is_registered()
    (bed.proc / "9" / "ns" / "net").unlink()
    look(bed)
    assert not bed.is_registered()


def test_the_end_of_an_older_sandbox_concerns_nobody(tmp_path: Path) -> None:
    bed = Bed(tmp_path)
    older = bed.runtime.put(replace(WEB, id="older", is_ready=False))
    look(bed, lambda: bed.runtime.remove(older))
    assert bed.is_registered()
    assert bed.follower.link.released == 0


def test_a_job_that_is_done_is_released_although_its_sandbox_lingers(tmp_path: Path) -> None:
    bed = Bed(tmp_path)

    def complete() -> None:
        bed.runtime.sandboxes[bed.web.id] = replace(bed.web, containers=("CONTAINER_EXITED",))

    look(bed, complete)
    assert bed.is_registered()  # the control plane wants it: it may be between two tries
    bed.synced = False
    look(bed, lambda: bed.hear({}, ("u1",)))
    assert bed.is_registered()  # it has not said everything yet
    bed.synced = True
    look(bed, lambda: None)
    assert not bed.is_registered()
    assert bed.follower.link.registered == 0  # nor comes back


def test_a_pod_deleted_by_force_stays_captured_while_it_lives(tmp_path: Path) -> None:
    bed = Bed(tmp_path)
    look(bed, lambda: bed.hear({}, ("u1",)))
    assert bed.is_registered()
    assert bed.runtime.calls.count("ListContainers") == 1


def test_a_pod_of_the_hosts_network_is_asked_about_once(tmp_path: Path) -> None:
    bed = Bed(tmp_path)
    bed.runtime.put(FakeSandbox(uid="u9", name="proxy", host_network=True))
    look(bed, lambda: None, lambda: None)
    assert bed.runtime.calls.count("PodSandboxStatus") == 1
    assert not bed.is_registered("u9")
    assert bed.follower.status()["not_registered"] == {}


def test_a_pod_that_cannot_be_registered_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    bed = Bed(tmp_path)
    other = bed.runtime.put(FakeSandbox(uid="u2", name="db", netns="/run/netns/tulle-absent"))
    dumb = bed.runtime.put(FakeSandbox(uid="u3", name="dumb"))
    look(bed, lambda: bed.runtime.stop(bed.web))
    assert not bed.is_registered()
    failures = bed.follower.status()["not_registered"]
    assert failures.keys() == {other.id, dumb.id}
    assert "tulle-absent" in failures[other.id]
    bed.runtime.remove(other)
    look(bed)
    assert bed.follower.status()["not_registered"].keys() == {dumb.id}


def test_a_deleted_container_is_the_past(tmp_path: Path) -> None:
    bed = Bed(tmp_path)
    bed.enroller.deleted("u1", bed.web.id)
    look(bed)
    assert bed.runtime.calls.count("PodSandboxStatus") == 0


def follow_until(bed: Bed, *steps: Callable[[], Any]) -> None:
    """Run the follower; each step is taken after the condition before it has come true."""

    async def scenario() -> None:
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(bed.follower.run())
            for step in steps:
                found = step()
                if callable(found):
                    await eventually(found)
                elif isinstance(found, Awaitable):
                    await found
            running.cancel()

    asyncio.run(scenario())


def test_an_event_brings_the_next_look_and_a_restart_of_the_runtime_is_survived(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "LIST_SPACING_S", 0.01)
    monkeypatch.setattr(follow, "AWAY_FIRST_S", 0.01)
    bed = Bed(tmp_path)
    server = bed.runtime.serving(tmp_path / "s")
    link = bed.follower.link

    def restart() -> Callable[[], Any]:
        bed.runtime.fails = True
        bed.runtime.cut()
        return lambda: not link.connected

    def back() -> Callable[[], Any]:
        bed.runtime.fails = False
        return lambda: link.connected

    def stop() -> Callable[[], Any]:
        bed.runtime.stop(bed.web)
        return lambda: not bed.is_registered()

    follow_until(
        bed,
        lambda: lambda: "no socket" in link.error,
        lambda: server.__aenter__(),
        lambda: lambda: link.connected and link.sandboxes == 1,
        restart,
        back,
        stop,
        lambda: server.__aexit__(None, None, None),
    )
    assert link.name == "containerd 2.1.9+unknown"


def test_a_stream_of_events_that_ends_is_opened_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "LIST_SPACING_S", 0.01)
    monkeypatch.setattr(follow, "AWAY_FIRST_S", 0.01)
    bed = Bed(tmp_path)
    server = bed.runtime.serving(tmp_path / "s")
    opened = lambda: bed.runtime.calls.count("GetContainerEvents")  # noqa: E731  # read twice

    def cut() -> Callable[[], Any]:
        bed.runtime.cut()
        return lambda: opened() == 2

    def stop() -> Callable[[], Any]:
        bed.runtime.stop(bed.web)
        return lambda: not bed.is_registered()

    follow_until(
        bed,
        lambda: server.__aenter__(),
        lambda: lambda: opened() == 1,
        cut,
        stop,
        lambda: server.__aexit__(None, None, None),
    )
    assert bed.runtime.calls.count("Version") == 1  # all on one connection


def test_without_a_runtime_pods_are_found_by_their_processes(tmp_path: Path) -> None:
    bed = Bed(tmp_path)
    uid = "95c8fcf2-e103-42ca-8599-4f2e296b5be3"
    netns = tmp_path / "netns"
    netns.touch()
    bed.lives(netns)
    (bed.proc / "9" / "cgroup").write_text(f"0::/kubepods/pod{uid}/x\n")
    asyncio.run(bed.follower.look_at_processes())
    assert bed.follower.status()["not_registered"] == {}  # nobody expects it
    bed.hear({uid: intent(uid, "db")})
    asyncio.run(bed.follower.look_at_processes())
    # Refused, as it is no namespace: but it was found.
    assert "not a namespace" in bed.follower.status()["not_registered"][uid]
