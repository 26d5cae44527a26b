"""The log of connections that the kernel half refuses by itself: nobody else can write a line.

Those of a SYN have one like the access log's, with both addresses and the pod; a line stands for
all that its sender, or one that shares its slot, sent since the last. Others have a line for each
reason. Every refusal is in the counters, whatever is written.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import Final, Protocol

import psutil

from agent.datapath.pods import CapturedPod
from agent.datapath.refusals import SYN_REFUSALS, increased
from agent.datapath.refused import RefusedSyn, Slots
from agent.registry import Registration
from control.kit.errors import KernelError
from control.kit.log import event
from control.model.address import Address, parse_address

log = logging.getLogger("agent")
access = logging.getLogger("access")

LOOK_S: Final = 2.0
# In one look, over all pods, which take turns: at most 25 lines a second, whatever is attacked.
REFUSED_LINES_MAX: Final = 50


class RefusingKernel(Protocol):
    def counters(self) -> dict[str, int]: ...

    def captured(self) -> list[CapturedPod]: ...

    def refused(self, uid: str) -> Slots:
        """Counts and last SYNs of the pod. Raises KernelError."""


class Names(Protocol):
    def get(self, uid: str) -> Registration | None: ...


@dataclass(frozen=True, slots=True)
class _News:
    uid: str
    syn: RefusedSyn
    count: int


class RefusedLog:
    def __init__(
        self,
        datapath: RefusingKernel,
        names: Names,
        own_addresses: Callable[[], Container[Address]] | None = None,
    ) -> None:
        self._datapath = datapath
        self._names = names
        self._own_addresses = own_addresses or addresses_of_host
        self._counters = datapath.counters()
        # An earlier process has told of these.
        self._told = {pod.uid: self._read(pod.uid) for pod in datapath.captured()}

    async def run(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            self.look()

    def look(self) -> None:
        now = self._datapath.counters()
        grown = increased(self._counters, now)
        self._counters = now
        for reason, count in grown.items():
            if reason not in SYN_REFUSALS:
                event(log, logging.INFO, "kernel.refused_connections", reason=reason, count=count)
        if not grown.keys().isdisjoint(SYN_REFUSALS):
            self._tell_syns()

    def _tell_syns(self) -> None:
        told, self._told = self._told, {}
        news: list[list[_News]] = []
        for pod in self._datapath.captured():
            found = self._told[pod.uid] = self._read(pod.uid)
            news.append(list(_news(pod.uid, told.get(pod.uid, {}), found)))
        # The first of each pod, then the second of each that has one.
        in_turn = [each for row in zip_longest(*news) for each in row if each is not None]
        left_out = sum(each.count for each in in_turn[REFUSED_LINES_MAX:])
        hosts = self._own_addresses() if in_turn else ()
        for each in in_turn[:REFUSED_LINES_MAX]:
            self._tell(each, is_host=each.syn.source.address in hosts)
        if left_out:
            event(access, logging.WARNING, "connection refused", left_out=left_out)

    def _tell(self, news: _News, *, is_host: bool) -> None:
        known = self._names.get(news.uid)
        named = {}
        if known is not None:
            named = {"dst.workload": known.name, "dst.namespace": known.namespace}
        # Most often a pod of the host's network, which shares its host's address and has no
        # identity of its own.
        sender = {"src.network": "host"} if is_host else {}
        fields: dict[str, object] = {
            "src.addr": news.syn.source,
            **sender,
            "dst.addr": news.syn.destination,
            **named,
            "direction": "inbound",
            "reason": news.syn.reason,
            "count": news.count,
        }
        event(access, logging.WARNING, "connection refused", **fields)

    def _read(self, uid: str) -> Slots:
        try:
            return self._datapath.refused(uid)
        except KernelError as exc:  # it is being released
            event(log, logging.DEBUG, "refused.unreadable", pod=uid, error=exc)
            return {}


def addresses_of_host() -> frozenset[Address]:
    """Addresses of our own network namespace: on a node, the host's."""
    entries = [entry for found in psutil.net_if_addrs().values() for entry in found]
    return frozenset(
        parse_address(each.address)
        for each in entries
        if each.family in (socket.AF_INET, socket.AF_INET6) and "%" not in each.address
    )


def _news(uid: str, before: Slots, now: Slots) -> Iterator[_News]:
    """One for each slot in which there is something new; of several processors, the one with most
    has the word."""
    more: dict[tuple[int, int], tuple[int, RefusedSyn]] = {}
    for place, (count, syn) in now.items():
        known = before.get(place)
        grown = count - known[0] if known is not None and known[0] <= count else count
        if grown:
            more[place] = grown, syn
    for syn, count in last_of_slots(more):
        yield _News(uid, syn, count)


def last_of_slots(slots: Slots) -> Iterator[tuple[RefusedSyn, int]]:
    """The last SYN of each slot and the count of them on all processors."""
    by_slot: dict[int, list[tuple[int, RefusedSyn]]] = {}
    for (slot, _), found in slots.items():
        by_slot.setdefault(slot, []).append(found)
    for each in by_slot.values():
        yield max(each, key=_count_of)[1], sum(map(_count_of, each))


def _count_of(found: tuple[int, RefusedSyn]) -> int:
    return found[0]
