"""How much open direct connections have moved, asked of their sockets now and then."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from agent.datapath import sockets
from agent.direct.cuts import NetnsOf
from agent.direct.flows import Flows
from control.kit.errors import MeshError
from control.kit.log import event

log = logging.getLogger("direct")

SAMPLE_S = 10.0  # metrics are scraped every 15 s or more seldom

Sampled = Callable[[list[sockets.Transfer]], None]


class Sampler:
    def __init__(self, flows: Flows, netns_of: NetnsOf, sampled: Sampled) -> None:
        self._flows = flows
        self._netns_of = netns_of
        self._sampled = sampled

    async def run(self) -> None:
        while True:
            await asyncio.sleep(SAMPLE_S)
            await self.sample()

    async def sample(self) -> None:
        """A pod at a time, 32 KiB of the kernel's answer at a time (1 ms), others in between."""
        for uid in sorted({flow.source for flow in self._flows}):
            try:
                with self._netns_of(uid) as netns_fd:
                    answers = sockets.transfers(netns_fd)
                    for found in answers:
                        self._sampled(found)
                        await asyncio.sleep(0)
            except (MeshError, OSError) as exc:
                event(log, logging.DEBUG, "flows.not_sampled", pod=uid, error=exc)
            await asyncio.sleep(0)
