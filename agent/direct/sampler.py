"""Samples of the sockets of direct connections: bytes moved, and which connections exist.

At the start they show the connections that an earlier agent knew, since a socket's storage has all
about it. Later they give the bytes, and reveal connections that began or ended without a report
because the ring was full.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Collection, Iterable
from typing import Protocol

from agent.datapath import sockets
from agent.datapath.flows import FlowReport
from agent.direct.cuts import NetnsOf
from agent.direct.flows import FlowTable
from agent.direct.tables import Tables
from control.kit.errors import MeshError
from control.kit.log import event

log = logging.getLogger("direct")

SAMPLE_S = 10.0  # metrics are scraped every 15 s or less often


class Seen(Protocol):
    """The receiver of what was seen."""

    def sampled(self, samples: Iterable[tuple[int, int, int]]) -> None: ...
    def found(self, events: Iterable[FlowReport]) -> None: ...
    def missed(self, numbers: Collection[int]) -> None: ...


class Sampler:
    def __init__(self, flows: FlowTable, netns_of: NetnsOf, tables: Tables, seen: Seen) -> None:
        self._flows = flows
        self._netns_of = netns_of
        self._tables = tables
        self._seen = seen

    async def run(self) -> None:
        lost = self._tables.lost_flows()
        await self._recover_all()
        while True:
            await asyncio.sleep(SAMPLE_S)
            lost = await self.turn(lost)

    async def turn(self, lost_before: int) -> int:
        """Take samples. After lost reports first look for connections: no policy could end them."""
        lost = self._tables.lost_flows()
        if lost != lost_before:
            event(log, logging.WARNING, "flows.lost", records=lost - lost_before)
            await self._recover_all()
        await self.sample()
        return lost

    async def _recover_all(self) -> None:
        for uid in sorted(self._flows.uids()):
            self.recover(uid)
            await asyncio.sleep(0)

    def recover(self, uid: str) -> None:
        """Find all direct connections of a pod, 20 us for each socket, without a pause: reports of
        their ends come after this."""
        try:
            with self._netns_of(uid) as netns_fd:
                for found in sockets.transfers(netns_fd, self._tables.socket_fd()):
                    flows = [
                        self._tables.open_flow(t.cookie, t.storage) for t in found if t.storage
                    ]
                    self._seen.found([each for each in flows if each is not None])
        except (MeshError, OSError) as exc:
            event(log, logging.WARNING, "flows.not_recovered", pod=uid, error=exc)

    async def sample(self) -> None:
        """Read the bytes of all connections; others run after each 32 KiB of answer (1 ms)."""
        listed: dict[str, set[int]] = defaultdict(set)
        for flow in self._flows:
            listed[flow.source].add(flow.report.id)
        for uid, numbers in listed.items():
            try:
                with self._netns_of(uid) as netns_fd:
                    for found in sockets.transfers(netns_fd):
                        numbers.difference_update(t.cookie for t in found)
                        self._seen.sampled((t.cookie, t.sent, t.received) for t in found)
                        await asyncio.sleep(0)
            except (MeshError, OSError) as exc:
                event(log, logging.DEBUG, "flows.not_sampled", pod=uid, error=exc)
                continue
            self._seen.missed(numbers)
            await asyncio.sleep(0)
