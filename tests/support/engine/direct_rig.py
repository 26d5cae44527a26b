"""A worker's engine on node `n1` with a direct path, and everything that it says to the agent."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from typing import Any

from control.kit.clock import SystemClock
from control.model.address import parse_endpoint
from control.model.policy import Policy
from control.model.workload import Service, Workload
from control.wire.direct import ZtunnelLine, encode, read_agent_line
from tests.support.engine.meshes import entry, key, mesh, pod, service
from tests.support.engine.tunnel_memory import FakeTime
from ztunnel.connections.engine import Engine, EngineConfig
from ztunnel.connections.pod import Pod
from ztunnel.connections.recheck import Recheck
from ztunnel.direct.path import WorkerDirect
from ztunnel.loop.reactor import Reactor
from ztunnel.loop.served import Served
from ztunnel.mesh.entries import Entry, Op
from ztunnel.mesh.route import ToTunnel, route
from ztunnel.telemetry.access_log import JSON, AccessLog
from ztunnel.transport.dial import Dialer

WEB = {key("web"): ()}
CLIENT = pod("client", "10.0.0.1", "fd00::1", node="n1")
SERVER = pod("server", "10.0.0.2", "fd00::2", node="n1", services=WEB)
FAR = pod("far", "10.0.9.9", "fd00::99", node="n2", services=WEB)
SERVICE = service("web", "10.1.0.1", "fd01::1")


class Rig:
    def __init__(self, *values: Workload | Service | Policy, generation: int | None = 7) -> None:
        self.bugs: list[Served] = []
        self.time = FakeTime()
        self.reactor = Reactor(self.bugs.append, self.time)
        state = mesh(CLIENT, SERVER, FAR, SERVICE, *values)
        config = EngineConfig(node="n1")
        self.log: list[str] = []
        self.engine = Engine(
            self.reactor,
            SystemClock(),
            state,
            config,
            dialer=Dialer(self.reactor),
            access_log=AccessLog(SystemClock(), self.log.append, JSON),
            ask_certificate=lambda _who, _waiting: None,
        )
        self.recheck = Recheck(self.engine)
        self.lines: list[dict[str, Any]] = []
        self.path = WorkerDirect(self.engine, self.tell)
        self.client, self.server = self.add(CLIENT), self.add(SERVER)
        if generation is not None:
            self.path.offers.on_generation(generation)

    def add(self, workload: Workload) -> Pod:
        made = Pod(
            f"uid-{workload.name}",
            workload.name,
            workload.namespace,
            workload.service_account,
            -1,
        )
        self.engine.pods[made.uid] = made
        self.path.offers.on_pods()
        return made

    def tell(self, line: ZtunnelLine) -> None:
        """Keep a line as the agent would get it."""
        self.lines.append(json.loads(encode(line)))

    def hear(self, **line: Any) -> None:
        """Have the worker hear a line of the agent."""
        self.path.take(read_agent_line(json.dumps(line).encode()))

    def change(self, *values: Workload | Service | Policy | Entry) -> None:
        """Have the worker take over a whole change."""
        self.part(*values, Entry(Op.SNAPSHOT))

    def part(self, *values: Workload | Service | Policy | Entry) -> None:
        entries = [each if isinstance(each, Entry) else entry(each) for each in values]
        changed = self.engine.state.apply(entries)
        self.recheck.after(changed)
        if changed.addresses:
            self.path.offers.on_addresses()

    def turns(self, number: int = 3) -> None:
        for _ in range(number):
            self.reactor.turn(0)

    def connect(self, asked: str, tries: int = 1) -> list[dict[str, Any]]:
        """The client's connections are routed and admitted; what is said because of it."""
        before = len(self.lines)
        for _ in range(tries):
            source = self.client.workload(self.engine.state)
            assert source is not None
            where = parse_endpoint(asked)
            decision = route(self.engine.state, source, where, random.Random(tries))
            assert isinstance(decision, ToTunnel)
            self.path.offers.admitted(self.client, source, where, decision)
        return self.lines[before:]

    def said(self) -> list[dict[str, Any]]:
        """Lines to the agent since the last call."""
        lines, self.lines[:] = list(self.lines), []
        return lines

    def access(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log]

    def counted(self, name: str) -> int:
        return self.engine.counters.engine.get(name, 0)

    def close(self) -> None:
        self.reactor.close()
        assert not self.bugs


def kinds(lines: Iterable[dict[str, Any]]) -> list[str]:
    return [each["kind"] for each in lines]
