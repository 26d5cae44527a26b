"""The supervisor before anything runs: what it waits for, what it shows, how it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from control.wire.direct import Plaintext
from tests.support.clock import FakeClock
from tests.support.engine.meshes import entry, pod
from tests.support.engine.tunnel_mesh import address_entry, policy_entry
from tests.unit.ztunnel.mesh.test_plaintext import STRICT, deny
from tests.unit.ztunnel.supervisor.test_plaintext import NamedPod
from ztunnel.config import ZtunnelConfig
from ztunnel.mesh.entries import Entry, Op
from ztunnel.supervisor.supervisor import Supervisor


def made(folder: Path, **settings: Any) -> Supervisor:
    config = ZtunnelConfig(
        "control:1", "control:1", folder / "zds", folder, node="n1", network="net", **settings
    )
    return Supervisor(config, FakeClock())


def test_it_is_ready_when_state_pods_and_workers_are(tmp_path: Path) -> None:
    subject = made(tmp_path)
    assert subject.pending() == ["state manager", "workload proxy manager", "proxy"]
    subject.state.apply([Entry(Op.SNAPSHOT)])
    subject.served.keep_only(set())
    assert subject.pending() == ["proxy"]


def test_a_drain_is_cut_short_by_an_interrupt_alone(tmp_path: Path) -> None:
    subject = made(tmp_path)
    subject.quit()
    subject.quit()
    assert subject._stop.is_set()
    assert not subject._stop_now.is_set()
    subject.interrupt()
    assert subject._stop_now.is_set()
    at_a_terminal = made(tmp_path)
    at_a_terminal.interrupt()
    assert not at_a_terminal._stop_now.is_set()


def test_the_dump_is_whole_before_anything_runs(tmp_path: Path) -> None:
    subject = made(tmp_path, direct=tmp_path / "direct.sock")
    subject.state.apply([entry(pod("web", "10.0.0.2", network="net"))])
    dump = asyncio.run(subject.config_dump())
    assert set(dump) == {
        "workloads",
        "services",
        "policies",
        "stagedServices",
        "certificates",
        "workloadState",
        "version",
        "config",
        "staticConfig",
        "node",
        "workers",
        "control",
        "agent",
        "direct",
        "tenants",
        "refused",
    }
    assert [each["name"] for each in dump["workloads"]] == ["web"]
    assert dump["control"] == {"connected": False, "synced": False, "settled": True, "error": ""}
    assert dump["direct"]["enabled"]
    assert not dump["direct"]["connected"]


class Answering:
    """Two workers, of which the second does not answer; `has` is what they were sent."""

    def __init__(self) -> None:
        self.has: list[str] = []
        self.asked_with: list[str] = []

    def publish(self, entries: Iterable[Entry]) -> None:
        self.has += [each.name for each in entries]

    async def query(self, what: str) -> dict[int, dict[str, Any]]:
        self.asked_with = list(self.has)
        return {0: {}}

    def status(self) -> list[dict[str, object]]:
        return [{"worker": number, "ready": True} for number in range(2)]


def test_a_page_lists_what_every_worker_that_it_calls_current_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One worker may apply a change later than another, and the kernel may have to know first."""
    monkeypatch.setattr("ztunnel.supervisor.supervisor.SENT_DEADLINE_S", 0.01)
    subject, workers = made(tmp_path, direct=tmp_path / "direct.sock"), Answering()
    kernel_knows = asyncio.Event()
    monkeypatch.setattr(subject, "workers", workers)
    monkeypatch.setattr(subject.direct, "_workers", workers)
    monkeypatch.setattr(workers, "publish_generation", lambda _: None, raising=False)
    monkeypatch.setattr(subject.direct.link, "stale", kernel_knows.wait)
    strict = policy_entry(deny(STRICT))

    async def pages() -> list[list[bool]]:
        found = []
        async with asyncio.TaskGroup() as tasks:
            subject.state.apply([strict])
            publishing = tasks.create_task(subject._publish([strict]))
            await asyncio.sleep(0)
            for _ in range(2):
                dump = await subject.config_dump()
                assert [each["name"] for each in dump["policies"]] == ["p"]
                found.append([each["current"] for each in dump["workers"]])
                kernel_knows.set()
                await publishing
        return found

    assert asyncio.run(pages()) == [[False, False], [True, False]]
    assert workers.asked_with == [strict.name]


def test_its_own_numbers(tmp_path: Path) -> None:
    subject = made(tmp_path, direct=tmp_path / "direct.sock")
    found = {each.name: each.value for each in asyncio.run(subject.samples())}
    assert found["istio_build"] == 1
    assert found["workload_manager_active_proxy_count"] == 0
    assert found["tulle_ztunnel_workers_ready"] == 0
    assert found["tulle_ztunnel_direct_connected"] == 0
    without = {each.name for each in asyncio.run(made(tmp_path).samples())}
    assert not any("direct" in name for name in without)


def test_only_a_direct_path_has_generations(tmp_path: Path) -> None:
    assert made(tmp_path).generation() is None
    assert made(tmp_path, direct=tmp_path / "direct.sock").generation() is not None


def test_the_kernel_hears_of_strict_with_the_word_that_makes_it_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = made(tmp_path, direct=tmp_path / "direct.sock")
    lines: list[Plaintext] = []
    monkeypatch.setattr(subject.plaintext, "_tell", lambda line: lines.append(line) or True)
    monkeypatch.setattr(subject.served, "all", lambda: [NamedPod("web", "shop", "web")])
    strict = deny(STRICT)
    open_, closed = (
        address_entry(replace(pod("web", "10.0.0.2"), authorization_policies=names))
        for names in ((), (strict.key,))
    )

    async def push(*batches: list[Entry]) -> list[bool]:
        for batch in batches:
            subject.state.apply(batch)
            await subject._publish(batch)
        taken = [line.refused for line in lines]
        lines.clear()
        return taken

    whole = [Entry(Op.SNAPSHOT)]
    assert asyncio.run(push([open_], whole)) == [False]
    assert asyncio.run(push([policy_entry(strict)], [closed])) == [], "perhaps half of an update"
    assert asyncio.run(push(whole)) == [True], "not at the next poll"
    assert asyncio.run(push([open_], whole, whole)) == [False]
