"""Decides which connections the kernel may carry itself: events in, commands out; no I/O (C9).

Peers. Every connected ztunnel is a *peer*. One of them is *current*: the newest connection of ZDS'
newest ztunnel process, once it has said hello. Its verdicts and services alone are written, and it
alone is told of flows. The generations of the others are acknowledged, so that no ztunnel waits for
us, and have no effect.

Generation. The number in the kernel is our own. It grows at the start, whenever another peer or
none becomes current, and with each new generation of the current peer, of which it stands for the
last one. That one write voids all verdicts under an older number, whoever wrote them. It is always
the first of the commands, so that the others may rely on it.

Lease. `renew` alone grants it, and only up to `lease_s` after a moment at which everything that the
current peer had sent by then was handled (the shell reads, then renews). So a ztunnel that closes
its connection, or gets no answer to a new generation, can rely on this: `lease_s` later nothing
goes direct.

Pods. A capture has a workload id, which is never given twice. A pod that may not go direct has none
here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import assert_never

from agent.datapath.entries import LocalEndpoint, PlaintextRules
from agent.datapath.flows import FlowReport
from agent.direct.commands import (
    Command,
    Destroy,
    Dismiss,
    DropService,
    PutService,
    PutVerdict,
    Send,
    ServiceKey,
    SetPlaintext,
    SetState,
)
from agent.direct.flows import FlowTable
from control.model.address import Address
from control.wire import direct as wire
from control.wire.direct import SERVICES_MAX, SLOTS_MAX

PLAINTEXT_PODS_MAX = 2048  # for one ztunnel, those that have gone included
LEASE_S = 2.0  # C9: the kernel stops this long after an agent that hangs or is gone


@dataclass(frozen=True, slots=True)
class DirectPod:
    """A captured pod whose connections may go direct."""

    uid: str
    workload: int
    addresses: tuple[Address, ...]


@dataclass(slots=True)
class _Peer:
    number: int
    pid: int
    generation: int | None = None  # None: no hello yet
    tells_pods: bool = False
    wants_flows: bool = False  # has asked for a replay
    plaintext: dict[str, PlaintextRules] = field(default_factory=dict)  # by uid


@dataclass(slots=True)
class LedgerCounts:
    verdicts: int = 0
    services: int = 0
    bumps: int = 0
    cuts: int = 0
    ignored: Counter[str] = field(default_factory=Counter)  # by reason


class Ledger:
    def __init__(self, kernel_generation: int, flows: FlowTable, lease_s: float = LEASE_S) -> None:
        """`kernel_generation`: the one that a past run left in force."""
        self._lease_s = lease_s
        self._flows = flows
        self._peers: dict[int, _Peer] = {}
        self._newest_pid: int | None = None
        self._current: _Peer | None = None
        self._pods: dict[str, DirectPod] = {}
        self._services: dict[ServiceKey, frozenset[int]] = {}  # → destinations
        self.generation = kernel_generation
        self.lease_until_ns = 0
        self.counts = LedgerCounts()

    def start(self) -> list[Command]:
        """Void the verdicts of a past run."""
        return self._bumped(0)

    # Ztunnels

    def joined(self, peer: int, pid: int) -> list[Command]:
        self._peers[peer] = _Peer(peer, pid)
        return [Send(peer, wire.encode_line(wire.AgentHello(self._lease_s)))]

    def left(self, peer: int, now_s: float) -> list[Command]:
        self._peers.pop(peer, None)
        return self._elect(now_s)

    def newest(self, pid: int | None, now_s: float) -> list[Command]:
        """Take note of ZDS' newest ztunnel; None: there is none."""
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
        if chosen is not None:
            commands += [SetPlaintext(uid, rules) for uid, rules in chosen.plaintext.items()]
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
        """Extend the lease. `now_ns`: all that the current peer sent before it has been handled."""
        if self._current is None or self._flows.is_full:
            return []
        until_ns = now_ns + int(self._lease_s * 1e9)
        if until_ns <= self.lease_until_ns:
            return []
        self.lease_until_ns = until_ns
        return [SetState(self.generation, until_ns)]

    # Lines of a ztunnel

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
            case wire.Plaintext():
                return self._plaintext(peer, message)
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
        peer.generation, peer.tells_pods = message.generation, message.tells_pods
        return self._elect(now_s)

    def _generation(self, peer: _Peer, generation: int) -> list[Command]:
        """Write to the kernel first, then tell the ztunnel that it is done."""
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
        """Write all of it or nothing: the others would get the share of an endpoint left out."""
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

    def _plaintext(self, peer: _Peer, message: wire.Plaintext) -> list[Command]:
        """Rules outlive the ztunnel: they only refuse what its successor would refuse as well."""
        rules = PlaintextRules(message.refused, frozenset(message.but))
        if message.pod not in peer.plaintext and len(peer.plaintext) >= PLAINTEXT_PODS_MAX:
            return self._ignore("plaintext_full")
        peer.plaintext[message.pod] = rules
        return [SetPlaintext(message.pod, rules)] if peer is self._current else []

    def lacks(self, uid: str) -> bool:
        """True while the current ztunnel, which would say so, has not said that it knows a pod."""
        peer = self._current
        return peer is not None and peer.tells_pods and uid not in peer.plaintext

    def forgotten(self, uid: str) -> None:
        for peer in self._peers.values():
            peer.plaintext.pop(uid, None)

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
            return []  # it gets it once it is
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
        """A pod was released, or may not go direct any more."""
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
            # A flow that is not listed cannot be cut, so no more are allowed.
            self.lease_until_ns = 0
            commands.insert(0, SetState(self.generation, 0))
        return commands + [Destroy(flow) for flow in self._flows.unlisted()]

    def lost(self, numbers: Iterable[int], now_s: float) -> list[Command]:
        """Connections have gone without a report of their end."""
        return self._told(self._flows.lost(numbers, now_s))

    def moved(self, samples: Iterable[tuple[int, int, int]]) -> list[Command]:
        return self._told(self._flows.moved(samples))

    def _told(self, lines: list[bytes]) -> list[Command]:
        return [] if self._current is None else [Send(self._current.number, s) for s in lines]

    # Status

    def reason(self, now_ns: int) -> str:
        """The reason why nothing goes direct (reasons.py); empty: connections may."""
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
