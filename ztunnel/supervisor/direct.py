"""The supervisor's part of the direct path: joins the agent's link and the workers.

It holds back changes that could turn a verdict until the kernel has been told that verdicts are
stale, passes offers up and flows down, and takes back the offers of a lost worker. It decides
nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Container, Iterable
from typing import Any, Protocol

from control.kit.errors import WireError
from control.kit.log import event
from control.model.address import Address
from control.wire.direct import (
    SERVICES_MAX,
    AgentHello,
    Cut,
    FlowLine,
    Plaintext,
    Replay,
    ServiceShare,
    Unknown,
    Verdict,
    ZtunnelLine,
)
from control.wire.direct_flows import flow_id
from ztunnel.mesh.entries import Entry
from ztunnel.supervisor.agent_link import DirectLink
from ztunnel.supervisor.stale import makes_stale

log = logging.getLogger("direct")

_ShareKey = tuple[str, Address, int]  # source pod, VIP, port


class DirectWorkers(Protocol):
    """The workers, as far as the direct path concerns them."""

    count: int

    def publish(self, entries: Iterable[Entry]) -> None: ...

    def publish_generation(self, generation: int) -> None: ...

    def send_direct(self, worker: int, line: AgentHello | FlowLine) -> None: ...


class DirectHub:
    """`link` is None where the direct path is off; then everything passes at once."""

    def __init__(self, workers: DirectWorkers, link: DirectLink | None = None) -> None:
        self._workers = workers
        self.link = link
        self._shares: dict[int, dict[_ShareKey, None]] = {}  # worker → shares it has offered
        self._holding = False
        self.lines: dict[str, int] = {}

    async def publish(self, entries: list[Entry], served: Container[tuple[str, str]]) -> bool:
        """Publish to every worker; where verdicts may change (True), not before the kernel
        knows."""
        link = self.link
        if link is None or not makes_stale(entries, served):
            self._workers.publish(entries)
            return False
        self._holding = True
        await link.stale()
        self._holding = False
        self._workers.publish(entries)
        self._workers.publish_generation(link.generation)
        return True

    def tell(self, line: Plaintext) -> bool:
        """Tell the agent what the supervisor has found out itself; False: there is none."""
        told = self.link is not None and self.link.send(line)
        if told:
            self._count(line.kind)
        return told

    # From the agent

    def heard(self, line: AgentHello | FlowLine) -> None:
        """Pass a line to the workers: a hello to each, a flow to the one that keeps it.

        WireError: a flow has no number.
        """
        self._count(line.kind)
        if isinstance(line, AgentHello):
            self._greeted(line)
            return
        parts: dict[int, list[Any]] = {}
        for flow in line.flows:
            parts.setdefault(flow_id(flow) % self._workers.count, []).append(flow)
        for worker, part in parts.items():
            self._workers.send_direct(worker, FlowLine(line.kind, part))

    def _greeted(self, hello: AgentHello) -> None:
        for worker in range(self._workers.count):
            self._workers.send_direct(worker, hello)
        # Entries held back come with their generation; it must not overtake them.
        if self.link is not None and not self._holding:
            self._workers.publish_generation(self.link.generation)
        self.replay()

    # From workers

    def said(self, worker: int, line: ZtunnelLine | Unknown) -> None:
        """Pass a worker's line to the agent; WireError: a worker may not say this."""
        if self.link is None or not isinstance(line, Verdict | ServiceShare | Cut):
            raise WireError(f"a line of kind {line.kind!r} for the agent")
        if isinstance(line, ServiceShare):
            self._remember(worker, line)
        if self.link.send(line):
            self._count(line.kind)

    def _remember(self, worker: int, share: ServiceShare) -> None:
        offered = self._shares.setdefault(worker, {})
        key = (share.source, share.vip, share.port)
        if share.slots:
            offered[key] = None
            if len(offered) > SERVICES_MAX:
                raise WireError("more shares than a worker may offer")
        else:
            offered.pop(key, None)

    def replay(self) -> None:
        """Ask for all open flows: a worker is new, or the agent is."""
        if self.link is not None:
            self.link.send(Replay())

    def worker_lost(self, worker: int) -> None:
        """Take back the shares that a worker has offered: nobody keeps them up to date now."""
        offered = self._shares.pop(worker, {})
        if offered and self.link is not None:
            event(log, logging.INFO, "direct.taken_back", worker=worker, services=len(offered))
            for key in offered:
                self.link.send(ServiceShare(*key))

    def _count(self, kind: str) -> None:
        self.lines[kind] = self.lines.get(kind, 0) + 1
