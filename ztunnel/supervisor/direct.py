"""The supervisor's part of the direct path: joins the agent's link and the workers.

It holds back what could change a verdict until the kernel has been told that verdicts are stale,
passes offers up and flows down, and takes back what a lost worker had offered. It decides nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Container, Iterable
from typing import Any, Final, Protocol

from control.kit.errors import WireError
from control.kit.log import event
from ztunnel.mesh.entries import Entry
from ztunnel.supervisor.agent_link import DirectLink, Line
from ztunnel.supervisor.stale import makes_stale

log = logging.getLogger("direct")

# Shares that one worker may have offered: its own bound, so more is a broken worker.
SERVICES_MAX: Final = 4096 + 1
_UPWARD: Final = frozenset({"verdict", "service", "cut"})


class Told(Protocol):
    """The workers."""

    count: int

    def publish(self, entries: Iterable[Entry]) -> None: ...

    def publish_generation(self, generation: int) -> None: ...

    def send_direct(self, worker: int, line: Line) -> None: ...


class DirectHub:
    """`link` is None where the direct path is off: then everything just passes."""

    def __init__(self, workers: Told, link: DirectLink | None = None) -> None:
        self._workers = workers
        self.link = link
        self._services: dict[int, dict[tuple[str, str, int], None]] = {}
        self._holding = False
        self.lines: dict[str, int] = {}

    async def publish(self, entries: list[Entry], served: Container[tuple[str, str]]) -> None:
        """To every worker; not before the kernel knows, where that matters."""
        link = self.link
        if link is None or not makes_stale(entries, served):
            self._workers.publish(entries)
            return
        self._holding = True
        await link.stale()
        self._holding = False
        self._workers.publish(entries)
        self._workers.publish_generation(link.generation)

    # From the agent

    def heard(self, line: Line) -> None:
        kind = line["kind"]
        self._count(kind)
        if kind == "hello":
            for worker in range(self._workers.count):
                self._workers.send_direct(worker, line)
            # What is held back comes with the generation, and must not come after it.
            if self.link is not None and not self._holding:
                self._workers.publish_generation(self.link.generation)
            self.replay()
            return
        flows = line.get("flows")
        if not isinstance(flows, list):
            raise WireError(f"{kind} without flows")
        parts: dict[int, list[Any]] = {}
        for flow in flows:
            parts.setdefault(_number(flow) % self._workers.count, []).append(flow)
        for worker, part in parts.items():
            self._workers.send_direct(worker, {"kind": kind, "flows": part})

    # From workers

    def said(self, worker: int, line: Line) -> None:
        """A worker's line for the agent."""
        kind = line.get("kind")
        if self.link is None or kind not in _UPWARD:
            raise WireError(f"a line of kind {kind!r} for the agent")
        if kind == "service":
            self._remember(worker, line)
        if self.link.send(line):
            self._count(str(kind))

    def _remember(self, worker: int, line: Line) -> None:
        told = self._services.setdefault(worker, {})
        port = line["port"]
        if not isinstance(port, int):
            raise WireError("a share without a port")
        key = (str(line["source"]), str(line["vip"]), port)
        if line["slots"]:
            told[key] = None
            if len(told) > SERVICES_MAX:
                raise WireError("more shares than a worker may offer")
        else:
            told.pop(key, None)

    def replay(self) -> None:
        """A worker is new, or the agent is."""
        if self.link is not None:
            self.link.send({"kind": "replay"})

    def worker_lost(self, worker: int) -> None:
        """Nobody keeps up to date what it has offered."""
        told = self._services.pop(worker, {})
        if told and self.link is not None:
            event(log, logging.INFO, "direct.taken_back", worker=worker, services=len(told))
            for source, vip, port in told:
                self.link.send(
                    {
                        "kind": "service",
                        "source": source,
                        "vip": vip,
                        "port": port,
                        "total": 0,
                        "slots": [],
                    }
                )

    def _count(self, kind: str) -> None:
        self.lines[kind] = self.lines.get(kind, 0) + 1


def _number(flow: Any) -> int:
    """A flow's id; WireError when it has none."""
    number = flow.get("id") if isinstance(flow, dict) else flow[0] if flow else None
    if not isinstance(number, int):
        raise WireError("a flow without a number")
    return number
