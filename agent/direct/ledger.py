"""Decides what the kernel may carry itself: input in, commands out; touches nothing (C9).

Who speaks. Every connected ztunnel is a *peer*. One of them is *current*: the newest connection of
the process that is ZDS' newest ztunnel, once it has said hello. Only its verdicts and services are
written; flows are told to it alone. The others' generations are acknowledged, so that no ztunnel
waits for us, and mean nothing.

Generation. The number in the kernel is our own. It grows at the start, whenever another peer (or
none) becomes current, and with each generation the current peer tells; it stands for the last of
those. All verdicts under an older number are void with that one write, whoever wrote them. It is
always the first of the commands: what follows may build on it.

Lease. It is granted by `renew` alone, and only up to `lease_s` after a moment at which everything
the current peer had said by then was handled (the shell reads, then renews). So whoever closes its
connection, or gets no answer to a new generation, knows: `lease_s` later nothing goes direct.

Pods. A capture has a workload id, never given twice. Who is not direct has none that counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import assert_never

from agent.datapath.entries import LocalEndpoint
from agent.datapath.flows import FlowReport
from agent.direct.flows import Flow, Flows
from control.model.address import Address
from control.wire import direct as wire
from control.wire.direct import SERVICES_MAX, SLOTS_MAX

LEASE_S = 2.0  # C9: how long the kernel goes on after an agent that does not


@dataclass(frozen=True, slots=True)
class SetState:
    generation: int
    lease_until_ns: int


@dataclass(frozen=True, slots=True)
class PutVerdict:
    source: int
    destination: int
    port: int
    generation: int


ServiceKey = tuple[int, Address, int]  # source workload, VIP, port


@dataclass(frozen=True, slots=True)
class PutService:
    key: ServiceKey
    total: int
    slots: tuple[LocalEndpoint, ...]


@dataclass(frozen=True, slots=True)
class DropService:
    key: ServiceKey


@dataclass(frozen=True, slots=True)
class Send:
    peer: int
    line: bytes


@dataclass(frozen=True, slots=True)
class Destroy:
    flow: Flow


@dataclass(frozen=True, slots=True)
class Dismiss:
    """End this peer's connection."""

    peer: int
    reason: str


Command = SetState | PutVerdict | PutService | DropService | Send | Destroy | Dismiss


@dataclass(frozen=True, slots=True)
class DirectPod:
    uid: str
    workload: int
    addresses: tuple[Address, ...]


@dataclass(slots=True)
class _Peer:
    number: int
    pid: int
    generation: int | None = None  # None: no hello yet
    wants_flows: bool = False  # has asked for a replay


@dataclass(slots=True)
class Counts:
    verdicts: int = 0
    services: int = 0
    bumps: int = 0
    cuts: int = 0
    ignored: Counter[str] = field(default_factory=Counter)  # by reason


class Ledger:
    def __init__(self, kernel_generation: int, flows: Flows, lease_s: float = LEASE_S) -> None:
        """`kernel_generation`: what a past run left in force."""
        self._lease_s = lease_s
        self._flows = flows
        self._peers: dict[int, _Peer] = {}
        self._newest_pid: int | None = None
        self._current: _Peer | None = None
        self._pods: dict[str, DirectPod] = {}
        self._services: dict[ServiceKey, frozenset[int]] = {}  # → destinations
        self.generation = kernel_generation
        self.lease_until_ns = 0
        self.counts = Counts()

    def start(self) -> list[Command]:
        """Void what a past run wrote."""
        return self._bumped(0)

    # Ztunnels

    def joined(self, peer: int, pid: int) -> list[Command]:
        self._peers[peer] = _Peer(peer, pid)
        return [Send(peer, wire.encode_line(wire.AgentHello(self._lease_s)))]

    def left(self, peer: int, now_s: float) -> list[Command]:
        self._peers.pop(peer, None)
        return self._elect(now_s)

    def newest(self, pid: int | None, now_s: float) -> list[Command]:
        """ZDS' newest ztunnel; None: there is none."""
        self._newest_pid = pid
        return self._elect(now_s)

    def _elect(self, now_s: float) -> list[Command]:
        able = [
            peer
            for peer in self._peers.values()
            if peer.pid == self._newest_pid and peer.generation is not None
        ]
        chosen = able[-1] if able else None
        if chosen is self._current:
            return []
        self._current = chosen
        commands = self._bumped(0)
        commands += [DropService(key) for key in self._services]
        self._services.clear()
        if chosen is not None and chosen.wants_flows:
            commands += self._replay(chosen, now_s)
        return commands

    def _bumped(self, lease_until_ns: int) -> list[Command]:
        self.generation += 1
        self.counts.bumps += 1
        self.lease_until_ns = lease_until_ns
        return [SetState(self.generation, lease_until_ns)]

    @property
    def current(self) -> int | None:
        return None if self._current is None else self._current.number

    def renew(self, now_ns: int) -> list[Command]:
        """`now_ns`: a moment up to which everything the current peer said has been handled."""
        if self._current is None or self._flows.is_full:
            return []
        until_ns = now_ns + int(self._lease_s * 1e9)
        if until_ns <= self.lease_until_ns:
            return []
        self.lease_until_ns = until_ns
        return [SetState(self.generation, until_ns)]

    # What a ztunnel says

    def said(
        self, number: int, message: wire.ZtunnelLine | wire.Unknown, now_s: float
    ) -> list[Command]:
        peer = self._peers[number]
        if isinstance(message, wire.ZtunnelHello):
            return self._hello(peer, message, now_s)
        if peer.generation is None:
            return [Dismiss(number, "no_hello")]
        match message:
            case wire.Generation(generation):
                return self._generation(peer, generation)
            case wire.Verdict():
                return self._verdict(peer, message)
            case wire.ServiceShare():
                return self._service(peer, message)
            case wire.Cut(flow):
                return self._cut(peer, flow)
            case wire.Replay():
                peer.wants_flows = True
                return self._replay(peer, now_s)
            case wire.Unknown():
                self.counts.ignored["unknown_kind"] += 1
                return []
            case _:
                assert_never(message)

    def _hello(self, peer: _Peer, message: wire.ZtunnelHello, now_s: float) -> list[Command]:
        if message.version != wire.VERSION:
            return [Dismiss(peer.number, "version")]
        if peer.generation is not None:
            return [Dismiss(peer.number, "second_hello")]
        peer.generation = message.generation
        return self._elect(now_s)

    def _generation(self, peer: _Peer, generation: int) -> list[Command]:
        """The kernel first, then the word that it knows."""
        peer.generation = generation
        commands = self._bumped(self.lease_until_ns) if peer is self._current else []
        return [*commands, Send(peer.number, wire.encode_line(wire.Generation(generation)))]

    def _verdict(self, peer: _Peer, message: wire.Verdict) -> list[Command]:
        source, destination = self._pods.get(message.source), self._pods.get(message.destination)
        if peer is not self._current:
            return self._ignore("not_newest")
        if message.generation != peer.generation:
            return self._ignore("stale_generation")
        if source is None or destination is None:
            return self._ignore("not_direct")
        self.counts.verdicts += 1
        ends = (source.workload, destination.workload)
        return [PutVerdict(*ends, message.port, self.generation)]

    def _service(self, peer: _Peer, message: wire.ServiceShare) -> list[Command]:
        """All of it or nothing: with an endpoint left out, the others would get its share."""
        if peer is not self._current:
            return self._ignore("not_newest")
        source = self._pods.get(message.source)
        if source is None:
            return self._ignore("not_direct")
        key = (source.workload, message.vip, message.port)
        slots = [self._slot(each) for each in message.slots[: SLOTS_MAX + 1]]
        usable = tuple(each for each in slots if each is not None)
        if not usable or len(usable) != len(slots) or len(slots) > SLOTS_MAX:
            dropped = self._forget({key} & self._services.keys())
            return dropped if not slots else [*dropped, *self._ignore("service_not_direct")]
        if key not in self._services and len(self._services) >= SERVICES_MAX:
            return self._ignore("services_full")
        self._services[key] = frozenset(slot.workload for slot in usable)
        self.counts.services += 1
        return [PutService(key, message.total, usable)]

    def _slot(self, slot: wire.ShareSlot) -> LocalEndpoint | None:
        pod = self._pods.get(slot.destination)
        if pod is None or slot.target.address not in pod.addresses:
            return None
        return LocalEndpoint(slot.weight, pod.workload, slot.target)

    def _cut(self, peer: _Peer, number: int) -> list[Command]:
        flow = self._flows.get(number)
        if peer is not self._current:
            return self._ignore("not_newest")
        if flow is None:
            return self._ignore("flow_over")
        self.counts.cuts += 1
        return [Destroy(flow)]

    def _replay(self, peer: _Peer, now_s: float) -> list[Command]:
        if peer is not self._current:
            return []  # once it is
        return [Send(peer.number, line) for line in self._flows.all_lines(now_s)]

    def _ignore(self, reason: str) -> list[Command]:
        self.counts.ignored[reason] += 1
        return []

    # Pods

    def captured(self, pod: DirectPod) -> list[Command]:
        known = self._pods.get(pod.uid)
        if known == pod:
            return []
        commands = self.released(pod.uid) if known is not None else []
        self._pods[pod.uid] = pod
        self._flows.named(pod.workload, pod.uid)
        return commands

    def released(self, uid: str) -> list[Command]:
        """Released, or no longer direct."""
        pod = self._pods.pop(uid, None)
        if pod is None:
            return []
        self._flows.retired(pod.workload)
        return self._forget(
            key
            for key, destinations in self._services.items()
            if key[0] == pod.workload or pod.workload in destinations
        )

    def _forget(self, keys: Iterable[ServiceKey]) -> list[Command]:
        gone = list(keys)
        for key in gone:
            del self._services[key]
        return [DropService(key) for key in gone]

    # Flows

    def flow_events(self, events: Iterable[FlowReport], now_s: float) -> list[Command]:
        was_full = self._flows.is_full
        commands = self._told(self._flows.take(events, now_s))
        if self._flows.is_full and not was_full:
            # What is not listed cannot be cut: no more of it.
            self.lease_until_ns = 0
            commands.insert(0, SetState(self.generation, 0))
        return commands + [Destroy(flow) for flow in self._flows.unlisted()]

    def lost(self, numbers: Iterable[int], now_s: float) -> list[Command]:
        """Connections that are not there any more, though nobody said that they ended."""
        return self._told(self._flows.lost(numbers, now_s))

    def moved(self, samples: Iterable[tuple[int, int, int]]) -> list[Command]:
        return self._told(self._flows.moved(samples))

    def _told(self, lines: list[bytes]) -> list[Command]:
        return [] if self._current is None else [Send(self._current.number, s) for s in lines]

    # To show

    def reason(self, now_ns: int) -> str:
        """Why nothing goes direct; empty: it may."""
        if self._current is None:
            if not self._peers:
                return "no_ztunnel"
            return "no_hello" if self._newest_pid is None else "not_newest"
        if self._flows.is_full:
            return "flows_full"
        return "" if self.lease_until_ns > now_ns else "lease_over"

    @property
    def pods(self) -> int:
        return len(self._pods)

    @property
    def services(self) -> int:
        return len(self._services)

    @property
    def ztunnel_generation(self) -> int | None:
        return None if self._current is None else self._current.generation
