"""Ends direct connections that are no longer allowed; which ones is not decided here.

A connection is found in its source pod's namespace and, where that is not to be had, at the other
end: either end's abort reaches both.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from agent.datapath import sockets
from agent.direct.flows import Flow
from control.kit.errors import MeshError
from control.kit.log import event
from control.model.address import Endpoint

log = logging.getLogger("direct")

CUTS_PER_TURN = 16  # each a namespace entered and two netlink messages: some 5 ms

# The network namespace of a pod, by uid; MeshError or OSError when it is gone.
NetnsOf = Callable[[str], AbstractContextManager[int]]


@dataclass(slots=True)
class Counts:
    destroyed: int = 0
    over: int = 0  # ended by itself before we came
    failed: int = 0


class Cuts:
    """At most one entry for each flow that is listed."""

    def __init__(self, netns_of: NetnsOf) -> None:
        self._netns_of = netns_of
        self._waiting: dict[int, Flow] = {}
        self._news = asyncio.Event()
        self.counts = Counts()

    def add(self, flow: Flow) -> None:
        self._waiting[flow.event.id] = flow
        self._news.set()

    async def run(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            while self._waiting:
                for number in list(self._waiting)[:CUTS_PER_TURN]:
                    self._cut(self._waiting.pop(number))
                await asyncio.sleep(0)

    def _cut(self, flow: Flow) -> None:
        client, target = flow.event.client, flow.event.target
        outcome = self._at(flow.source, client, target)
        if outcome is not True:
            outcome = self._at(flow.destination, target, client) or outcome
        if outcome is True:
            self.counts.destroyed += 1
        elif outcome is False:
            self.counts.over += 1
        else:
            self.counts.failed += 1
        level = logging.INFO if outcome else logging.WARNING
        event(log, level, "flow.cut", client=client, target=target, found=bool(outcome))

    def _at(self, uid: str, local: Endpoint, remote: Endpoint) -> bool | None:
        """Destroyed; False: not there; None: could not look."""
        try:
            with self._netns_of(uid) as netns_fd:
                return sockets.destroy(netns_fd, local, remote)
        except (MeshError, OSError) as exc:
            event(log, logging.DEBUG, "flow.not_found", pod=uid, error=exc)
            return None
