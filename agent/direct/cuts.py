"""Ends direct connections that are not allowed any more; others decide which ones.

A connection is looked up in its source pod's namespace and, when that fails, at the other end: an
abort of either end reaches both.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from agent.datapath import sockets
from agent.direct.flows import DirectFlow
from control.kit.errors import MeshError
from control.kit.log import event
from control.kit.work_queue import WorkQueue
from control.model.address import Endpoint

log = logging.getLogger("direct")

CUTS_PER_TURN = 16  # some 5 ms: each enters a namespace and takes two netlink messages

# The descriptor of a pod's network namespace, by uid; MeshError or OSError when it is gone.
NetnsOf = Callable[[str], AbstractContextManager[int]]


@dataclass(slots=True)
class CutCounts:
    destroyed: int = 0
    over: int = 0  # ended by themselves before that
    failed: int = 0


class Cuts:
    """A queue with at most one entry for each flow in the table."""

    def __init__(self, netns_of: NetnsOf) -> None:
        self._netns_of = netns_of
        self._waiting: WorkQueue[int, DirectFlow] = WorkQueue()
        self.counts = CutCounts()

    def add(self, flow: DirectFlow) -> None:
        self._waiting.add(flow.report.id, flow)

    async def run(self) -> None:
        while True:
            for _, flow in await self._waiting.take(CUTS_PER_TURN):
                self._cut(flow)

    def _cut(self, flow: DirectFlow) -> None:
        client, target = flow.report.client, flow.report.target
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
        """True: ended; False: it is not there; None: the namespace could not be looked into."""
        try:
            with self._netns_of(uid) as netns_fd:
                return sockets.destroy(netns_fd, local, remote)
        except (MeshError, OSError) as exc:
            event(log, logging.DEBUG, "flow.not_found", pod=uid, error=exc)
            return None
