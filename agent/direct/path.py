"""The direct path as it runs: reads direct.sock and the ring, carries out the ledger's commands.

One thread, and no await between reading a ztunnel and writing the lease: first the clock is read,
then everything that the ztunnel has sent, then the lease goes to the kernel. So an agent that is
stopped anywhere in between grants no more than that reading of the clock allows.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Collection, Iterable
from typing import assert_never

from agent.datapath.entries import PlaintextRules
from agent.datapath.flows import FlowReport
from agent.direct import commands as do
from agent.direct.commands import Command
from agent.direct.cuts import Cuts, NetnsOf
from agent.direct.flows import FlowTable
from agent.direct.ledger import DirectPod, Ledger
from agent.direct.peer import DirectPeer, PeerGone, PeerRefused, check_credentials, credentials
from agent.direct.sampler import Sampler
from agent.direct.tables import Tables
from control.kit.clock import Clock
from control.kit.errors import KernelError, PeerError
from control.kit.log import event
from control.model.address import Address
from control.wire import direct as wire

log = logging.getLogger("direct")

RENEW_S = 0.5  # a quarter of the lease: two renewals may be late
COALESCE_S = 0.05  # reports of this time go out in one line, with one wake-up
EVENTS_PER_TURN = 1024  # some 5 ms; the rest waits for the next turn of the loop
RING_TURNS_MAX = 16  # twice what the ring holds, so that it counts as emptied
KNOWN_S = 2.0  # for a registration; the control plane may be away, or slow
PEERS_MAX = 8  # as in ZDS; an upgrade needs two
KINDS_LOGGED_MAX = 32

WritePlaintext = Callable[[str, PlaintextRules], None]  # KernelError when the kernel refuses


class DirectPath:
    def __init__(
        self,
        tables: Tables,
        clock: Clock,
        netns_of: NetnsOf,
        set_plaintext: WritePlaintext,
        *,
        grants: bool = True,
    ) -> None:
        """Without `grants` nothing goes direct, and the ztunnel's rules on plaintext count."""
        self.flows = FlowTable()
        self._tables = tables
        self._set_plaintext = set_plaintext
        self._grants = grants
        self._news = asyncio.Event()  # a ztunnel has told of a pod
        self._clock = clock
        self._peers: dict[int, DirectPeer] = {}
        self._numbers = 0
        self._kinds_logged: set[str] = set()
        self.cuts = Cuts(netns_of)
        self._sampler = Sampler(self.flows, netns_of, tables, self)
        self.ledger = Ledger(tables.state()[0], self.flows)
        self.dismissed: dict[str, int] = {}  # reason → connections ended
        self.kernel_refusals = 0
        self._is_running = False
        self._do(self.ledger.start())
        tables.drop_services()

    # Events of the enroller

    def newest(self, pid: int | None) -> None:
        self._do(self.ledger.newest(pid, self._clock.monotonic_s()))
        self._renew()

    def captured(self, uid: str, workload: int, addresses: tuple[Address, ...]) -> None:
        self._do(self.ledger.captured(DirectPod(uid, workload, addresses)))

    def released(self, uid: str, workload: int = 0) -> None:
        """`workload`: the pod stays captured under that id and may have open connections."""
        self._do(self.ledger.released(uid))
        if workload:
            self.flows.retired(workload, uid)

    def forgotten(self, uid: str) -> None:
        """The pod was deleted; under the same uid it may come again."""
        self.ledger.forgotten(uid)

    async def known(self, uid: str) -> bool:
        """Wait until the ztunnel knows the pod's workload; False after a while: then the pod's
        first connection waits for that. True at once where no ztunnel says such things."""
        try:
            async with asyncio.timeout(KNOWN_S):
                while self.ledger.lacks(uid):
                    await self._news.wait()
        except TimeoutError:
            event(log, logging.WARNING, "pod.not_known", uid=uid)
            return False
        return True

    # Running

    async def run(self, listener: socket.socket) -> None:
        """Serve until cancelled; the lease then ends at once."""
        loop = asyncio.get_running_loop()
        loop.add_reader(listener, self._accept, listener)
        loop.add_reader(self._tables.flow_fd(), self._flows_waiting)
        self._is_running = True
        self._empty_ring()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self.cuts.run(), name="direct.cuts")
                tasks.create_task(self._sampler.run(), name="direct.sampler")
                while True:
                    self._renew()
                    await asyncio.sleep(RENEW_S)
        finally:
            self._is_running = False
            loop.remove_reader(listener)
            loop.remove_reader(self._tables.flow_fd())
            for peer in list(self._peers.values()):
                self._end(peer, "agent_stops")

    def _renew(self) -> None:
        """Renew the lease, after all that the ztunnel has sent is handled (see the module)."""
        now_ns = int(self._clock.monotonic_s() * 1e9)
        current = self._peers.get(self.ledger.current or 0)
        if current is not None and self._is_running:
            self._read(current)
            if current.number == self.ledger.current and current.is_drained():
                self._do(self.ledger.renew(now_ns) if self._grants else [])

    # Ztunnels

    def _accept(self, listener: socket.socket) -> None:
        try:
            sock, _ = listener.accept()
        except OSError:
            return  # it has left already
        self.admit(sock)

    def admit(self, sock: socket.socket) -> None:
        """Take in a connection, or refuse it."""
        try:
            pid, user = credentials(sock)
            check_credentials(pid, user)
            if len(self._peers) >= PEERS_MAX:
                raise PeerRefused(f"more than {PEERS_MAX} ztunnels")
        except (PeerError, OSError) as exc:
            sock.close()
            event(log, logging.WARNING, "ztunnel.refused", error=exc)
            return
        self._numbers += 1
        peer = self._peers[self._numbers] = DirectPeer(self._numbers, pid, sock)
        peer.start(lambda: self._readable(peer))
        event(log, logging.INFO, "ztunnel.joined", pid=pid)
        self._do(self.ledger.joined(peer.number, pid))

    def _readable(self, peer: DirectPeer) -> None:
        before = self.ledger.current
        self._read(peer)
        if self.ledger.current != before:
            self._renew()

    def _read(self, peer: DirectPeer) -> None:
        """Handle its lines. The boundary: a ztunnel's faults end its own connection alone."""
        try:
            for line in peer.lines():
                self._take(peer, line)
                if peer.number not in self._peers:
                    return
        except PeerError as exc:
            self._end(peer, exc.reason, exc)

    def _take(self, peer: DirectPeer, line: bytes) -> None:
        message = wire.read_ztunnel_line(line)
        match message:
            case wire.Generation() | wire.Replay() | wire.ZtunnelHello():
                self._empty_ring()  # connections opened before are reported before the answer
            case wire.Unknown(kind):
                self._log_kind(kind)
            case _:
                pass
        self._do(self.ledger.said(peer.number, message, self._clock.monotonic_s()))

    def _log_kind(self, kind: str) -> None:
        if kind not in self._kinds_logged and len(self._kinds_logged) < KINDS_LOGGED_MAX:
            self._kinds_logged.add(kind)
            event(log, logging.INFO, "line.unknown", kind=kind)

    def _end(self, peer: DirectPeer, reason: str, error: PeerError | None = None) -> None:
        if self._peers.pop(peer.number, None) is None:
            return
        peer.close()
        self._do(self.ledger.left(peer.number, self._clock.monotonic_s()))
        self.dismissed[reason] = self.dismissed.get(reason, 0) + 1
        level = logging.INFO if isinstance(error, PeerGone) else logging.WARNING
        event(log, level, "ztunnel.left", pid=peer.pid, reason=reason, error=error or "")

    # The ring

    def _flows_waiting(self) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._tables.flow_fd())
        loop.call_later(COALESCE_S, self._flows_turn)

    def _flows_turn(self) -> None:
        if not self._is_running:
            return
        loop = asyncio.get_running_loop()
        if self._read_flows() < EVENTS_PER_TURN:
            loop.add_reader(self._tables.flow_fd(), self._flows_waiting)
        else:
            loop.call_soon(self._flows_turn)

    def _read_flows(self) -> int:
        events = self._tables.read_flows(EVENTS_PER_TURN)
        self._do(self.ledger.flow_events(events, self._clock.monotonic_s()))
        return len(events)

    def _empty_ring(self) -> None:
        for _ in range(RING_TURNS_MAX):
            if self._read_flows() < EVENTS_PER_TURN:
                return

    # Events of the sampler

    def sampled(self, samples: Iterable[tuple[int, int, int]]) -> None:
        self._do(self.ledger.moved(samples))

    def found(self, events: Iterable[FlowReport]) -> None:
        self._do(self.ledger.flow_events(events, self._clock.monotonic_s()))

    def missed(self, numbers: Collection[int]) -> None:
        """Connections in the table that have no socket; the ring may explain some of them."""
        if numbers:
            self._empty_ring()
            self._do(self.ledger.lost(numbers, self._clock.monotonic_s()))

    # Commands

    def _do(self, commands: Iterable[Command]) -> None:
        """Carry out commands in order, and stop relying on what the kernel refuses."""
        for command in commands:
            try:
                self._do_one(command)
            except KernelError as exc:
                self.kernel_refusals += 1
                event(log, logging.ERROR, "kernel.refused", command=command, error=exc)
                if isinstance(command, do.SetState):
                    # The other commands would tell ztunnels that it is in force, and it is not.
                    for peer in list(self._peers.values()):
                        self._end(peer, "kernel")
                    return

    def _do_one(self, command: Command) -> None:
        match command:
            case do.SetState(generation, lease_until_ns):
                self._tables.set_state(generation, lease_until_ns)
            case do.PutVerdict(source, destination, port, generation):
                self._tables.put_verdict(source, destination, port, generation)
            case do.PutService((source, vip, port), total, endpoints):
                self._tables.put_service(source, vip, port, total, endpoints)
            case do.DropService((source, vip, port)):
                self._tables.drop_service(source, vip, port)
            case do.SetPlaintext(uid, rules):
                self._news.set()
                self._news = asyncio.Event()
                self._set_plaintext(uid, rules)
            case do.Send(number, line):
                self._send(number, line)
            case do.Destroy(flow):
                self.cuts.add(flow)
            case do.Dismiss(number, reason):
                peer = self._peers.get(number)
                if peer is not None:
                    self._end(peer, reason)
            case _:
                assert_never(command)

    def _send(self, number: int, line: bytes) -> None:
        peer = self._peers.get(number)
        if peer is None:
            return
        try:
            peer.send(line)
        except PeerError as exc:
            self._end(peer, exc.reason, exc)

    # Status

    def status(self) -> dict[str, object]:
        now_ns = int(self._clock.monotonic_s() * 1e9)
        reason = self.ledger.reason(now_ns) if self._is_running else "switched_off"
        reason = reason if self._grants else "no_direct"
        left_ns = self.ledger.lease_until_ns - now_ns
        return {
            "on": not reason,
            "reason": reason,
            "generation": self.ledger.generation,
            "ztunnel_generation": self.ledger.ztunnel_generation,
            "lease_s_left": round(max(left_ns, 0) / 1e9, 2) if not reason else 0.0,
            "pods": self.ledger.pods,
            "services": self.ledger.services,
            "verdicts": self.ledger.counts.verdicts,
            "flows": len(self.flows),
            "flows_max": self.flows.limit,
            "flows_opened": self.flows.counts.opened,
            "flows_closed": self.flows.counts.closed,
            "flows_failed": self.flows.counts.failed,
            "flows_unlisted": self.flows.counts.unlisted,
            "cuts": self.cuts.counts.destroyed,
        }
