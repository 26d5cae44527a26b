"""A whole agent on a kernel half in memory, with one captured pod and one that waits."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from agent.config import AgentConfig
from agent.datapath.conflicts import Conflict
from agent.datapath.refused import RefusedSyn, Slots
from agent.datapath.usage import MapUsage
from agent.direct.off import Off
from agent.enrol.enroller import Enroller, Host
from agent.enrol.plan import Capture
from agent.intents import Intents, NoControl
from agent.kubelet.watch import KubeletWatch
from agent.registry import Registration, Registry
from agent.status import Agent
from bpf import layout
from control.model.address import Endpoint, parse_address
from control.model.intent import Intent
from tests.support.clock import FakeClock
from tests.support.kernel.fake_datapath import FakeDatapath, FakeDirect, FakeKubeletHook

ADDRESS = parse_address("10.0.0.1")
POD = Registration("u1", "shop", "web", "/run/netns/tulle-absent", 7, 8, "default", (ADDRESS,))


class ShownDatapath(FakeDatapath):
    """A kernel half with something to show."""

    shortcut_obstacle: str | None = None

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Conflict] = []
        self.used = 1

    def usage(self) -> list[MapUsage]:
        return [MapUsage("pods", self.used, 10), MapUsage("flows", 0, 64, drops=2)]

    def counters(self) -> dict[str, int]:
        return {counter.name.lower(): int(counter) for counter in layout.Counter}

    def refused(self, uid: str) -> Slots:
        syn = RefusedSyn("inbound_strict", Endpoint(ADDRESS, 5), Endpoint(ADDRESS, 80))
        return {(0, 0): (2, syn), (0, 1): (3, syn)}

    def conflicts(self) -> list[Conflict]:
        return self.found


@asynccontextmanager
async def nowhere() -> AsyncIterator[Any]:
    raise NoControl("nobody there")
    yield


def intent(uid: str, name: str, **changes: Any) -> Intent:
    fields = {"enrolled": True, "reason": "", "direct": False, "direct_reason": "by label"}
    return Intent(uid, name, "shop", "account", "n1", (ADDRESS,), **{**fields, **changes})


def example(folder: Path) -> Agent:
    config = AgentConfig(
        node="n1",
        control="10.0.0.9:15012",
        control_root=folder / "root.pem",
        control_name="tulle-control",
        token=None,
        zds=folder / "zds.sock",
        cgroup_root=folder,
        run_dir=folder / "run",
        bpffs=folder / "bpf",
        cache=folder / "cache",
    )
    clock, datapath = FakeClock(), ShownDatapath()
    known = Registry(folder / "state")
    known.load()
    enroller = Enroller(Host("n1", folder, 2.0), datapath, known, clock, FakeDirect())
    enroller.register(POD)
    enroller.intents_changed({"u1": intent("u1", "web"), "u2": intent("u2", "db")}, [])
    enroller.facts.book.adopted("u1", Capture(POD.cookie, POD.addresses))
    enroller.facts.news()
    intents = Intents("n1", config.control, nowhere, clock)
    shown: Any = datapath
    kubelet = KubeletWatch(FakeKubeletHook(), folder, config.kubelet_port, clock)
    off = Off("no_direct")
    return Agent(config, clock, clock.now(), shown, known, enroller, intents, off, kubelet)
