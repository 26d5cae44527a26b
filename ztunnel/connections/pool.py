"""The tunnels that new streams go into, by pod, identity, peer identities and address.

Streams with the same key share tunnels, a bounded number each. One dial for each key is under way
at a time; connections that need it wait for its result. No bytes are moved and no route is decided
here.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from control.model.identity import SpiffeId
from ztunnel.connections.pool_failure import PoolFailure, failure, failure_of
from ztunnel.hbone.events import RequestReceived
from ztunnel.hbone.session import Session
from ztunnel.hbone.settings import CLIENT_SETTINGS, Role
from ztunnel.loop.reactor import Reactor
from ztunnel.mesh.roles import NextHop
from ztunnel.refusals import Flag, Reason
from ztunnel.tenants.book import Tenants
from ztunnel.tenants.tenancy import Tenancy
from ztunnel.transport.credentials import Credentials
from ztunnel.transport.dial import DialError, Dialling, Dials
from ztunnel.transport.ends import TunnelEnd
from ztunnel.transport.keepalive import Keepalive
from ztunnel.transport.tls import TlsConnection, TlsContext, expect_one_of
from ztunnel.transport.tunnel import Tunnel

STREAMS_PER_TUNNEL_MAX: Final = 100
# 6,400 connections of one pod to one peer. Beyond this they wait for others to end.
TUNNELS_PER_KEY_MAX: Final = 64
# Connections that wait for the dial of one key: a burst of a busy client, a socket each.
WAITERS_PER_KEY_MAX: Final = 2048
# A connect (10 s) and a handshake (10 s) may pass before a waiter hears of it. This ends a queue
# that does not move.
WAIT_S: Final = 20.0
IDLE_S: Final = 300.0
# A peer whose host answers nothing for so long is left by connections that can go elsewhere.
SLOW_S: Final = 2.0
# The peer of a tunnel whose workload has gone has this long to show that it lives.
PROBATION_S: Final = 5.0
# To a peer's HBONE port, nothing else in the way is as frequent.
BLOCKED_HINT: Final = "a NetworkPolicy may be blocking port 15008"


@dataclass(frozen=True, slots=True)
class PoolKey:
    pod_uid: str
    source: SpiffeId
    expected: tuple[SpiffeId, ...]
    dial: NextHop
    workload: str = ""  # uid of the one that answers there: an address may pass to another


class PoolWaiter(Protocol):
    def on_tunnel(self, tunnel: Tunnel) -> None:
        """The tunnel has room for a stream now."""

    def on_no_tunnel(self, why: PoolFailure) -> None: ...

    def on_slow(self) -> None:
        """The peer does not answer, and no tunnel to it is open. It may still come."""

    def on_bug(self) -> None: ...


class Pool:
    def __init__(
        self,
        reactor: Reactor,
        keepalive: Keepalive,
        credentials: Credentials,
        dialer: Dials,
        tenants: Tenants,
    ) -> None:
        self.reactor = reactor
        self.keepalive = keepalive
        self.credentials = credentials
        self.dialer = dialer
        self.tenants = tenants
        # Hears of tunnels that were ended because of what their peer did.
        self.on_dismissed: Callable[[Reason, Tenancy, str], None] = _nobody_hears
        self._slots: dict[PoolKey, Slot] = {}
        self._by_workload: dict[str, dict[Slot, None]] = {}
        self._retired: dict[Slot, None] = {}  # only finish what is open
        self.waiting = reactor.countdown(WAIT_S, self._give_up)
        self.slow = reactor.countdown(SLOW_S, Slot.slow)
        self.idle = reactor.countdown(IDLE_S, Tunnel.make_room)
        self.probation = reactor.countdown(PROBATION_S, _close_silent)
        self.draining = False

    def slot(self, netns_fd: int, key: PoolKey, tenant: Tenancy) -> Slot:
        """The tunnels of `key`, dialled from that network namespace; good until it is `gone`.
        `tenant` is the pod, who pays for them."""
        slot = self._slots.get(key)
        if slot is None:
            slot = self._slots[key] = Slot(self, netns_fd, key, tenant)
            self._by_workload.setdefault(key.workload, {})[slot] = None
        return slot

    def withdraw(self, key: PoolKey, waiter: PoolWaiter) -> None:
        """Stop waiting: the connection no longer wants a tunnel."""
        self.waiting.stop(waiter)
        slot = self._slots.get(key)
        if slot is not None:
            slot.waiters.pop(waiter, None)

    def _give_up(self, waiter: PoolWaiter) -> None:
        for slot in self._slots.values():
            if waiter in slot.waiters:
                del slot.waiters[waiter]
                break
        waiter.on_no_tunnel(failure(Reason.POOL_TIMEOUT, "no tunnel had room in time"))

    def now_idle(self, tunnel: Tunnel, tenant: Tenancy) -> None:
        self.idle.start(tunnel)
        self.tenants.idle.leave(tenant, tunnel)
        displaced = self.tenants.idle.enter(tenant, tunnel, self.reactor.now_s)
        if displaced is not None:
            self.reactor.serve(displaced, displaced.make_room)

    def not_idle(self, tunnel: Tunnel, tenant: Tenancy) -> None:
        self.idle.stop(tunnel)
        self.tenants.idle.leave(tenant, tunnel)

    def drop(self, slot: Slot) -> None:
        """Drop the slot if it is empty: keys come and go with pods."""
        if slot.is_empty:
            self._remove(slot)
            self._retired.pop(slot, None)

    def _remove(self, slot: Slot) -> None:
        """No new connection finds it from now on."""
        slot.gone = True
        if self._slots.get(slot.key) is slot:
            del self._slots[slot.key]
        alike = self._by_workload.get(slot.key.workload)
        if alike is not None:
            alike.pop(slot, None)
            if not alike:
                del self._by_workload[slot.key.workload]

    def retire(self, workload: str) -> None:
        """The workload with that uid has gone, or has left an address: nobody else is reached by
        its tunnels, even if another has its address now."""
        for slot in list(self._by_workload.get(workload, ())) if workload else ():
            self._remove(slot)
            self._retired[slot] = None
            slot.retire()
            self.drop(slot)

    def _all(self) -> list[Slot]:
        return [*self._slots.values(), *self._retired]

    def forget_pod(self, uid: str) -> None:
        for slot in [each for each in self._all() if each.key.pod_uid == uid]:
            self._remove(slot)
            self._retired.pop(slot, None)
            slot.close(TunnelEnd.POD_DELETED)

    def drain(self) -> None:
        self.draining = True
        for slot in self._all():
            slot.drain()

    @property
    def tunnels(self) -> int:
        return sum(len(slot.all_tunnels) for slot in self._all())

    def view(self) -> list[dict[str, object]]:
        return [
            {
                "pod": slot.key.pod_uid,
                "source": str(slot.key.source),
                "expected": [str(each) for each in slot.key.expected],
                "destination": str(slot.key.dial),
                "workload": slot.key.workload,
                "retired": slot.gone,
                "streams": [tunnel.streams for tunnel in slot.all_tunnels],
                "waiting": len(slot.waiters),
            }
            for slot in self._all()
        ]


def _close_silent(tunnel: Tunnel) -> None:
    if tunnel.pings.silent_s >= PROBATION_S:
        tunnel.close(TunnelEnd.PING_TIMEOUT)


def _nobody_hears(_reason: Reason, _tenant: Tenancy, _peer: str) -> None:
    pass


class Slot:
    """The tunnels of one key, and the dial under way for it."""

    def __init__(self, pool: Pool, netns_fd: int, key: PoolKey, tenant: Tenancy) -> None:
        self._pool = pool
        self._netns_fd = netns_fd
        self.key = key
        self._tenant = tenant
        # And until when each is; others only finish their streams.
        self._usable: dict[Tunnel, float] = {}
        self.all_tunnels: dict[Tunnel, None] = {}
        self.waiters: dict[PoolWaiter, None] = {}
        self._opening = False
        self._dial: Dialling | None = None
        self._handshaking: Tunnel | None = None
        self._closed = False
        self.gone = False  # the pool no longer knows it

    @property
    def is_empty(self) -> bool:
        return not (self._opening or self.waiters or self.all_tunnels)

    def acquire(self, waiter: PoolWaiter) -> None:
        tunnel = self._with_room()
        if tunnel is not None and not self.waiters:
            if not tunnel.streams:
                self._pool.not_idle(tunnel, self._tenant)
            waiter.on_tunnel(tunnel)
            return
        if len(self.waiters) >= WAITERS_PER_KEY_MAX:
            detail = f"{len(self.waiters)} connections wait for a tunnel"
            waiter.on_no_tunnel(failure(Reason.POOL_FULL, detail))
            return
        self.waiters[waiter] = None
        self._pool.waiting.start(waiter)
        self._serve_waiters()

    def _with_room(self) -> Tunnel | None:
        for tunnel, turn_s in self._usable.items():
            if self._pool.reactor.now_s >= turn_s:
                del self._usable[tunnel]
                tunnel.drain()
                return self._with_room()
            if tunnel.streams < STREAMS_PER_TUNNEL_MAX and tunnel.session.can_open:
                return tunnel
        return None

    def _serve_waiters(self) -> None:
        while self.waiters:
            tunnel = self._with_room()
            if tunnel is None:
                self._open()
                return
            waiter = next(iter(self.waiters))
            del self.waiters[waiter]
            self._pool.waiting.stop(waiter)
            if not tunnel.streams:
                self._pool.not_idle(tunnel, self._tenant)
            self._pool.reactor.serve(waiter, waiter.on_tunnel, tunnel)

    # -- opening: certificate, connect, TLS ------------------------------------------------------

    def _open(self) -> None:
        if self._opening or self._closed or len(self._usable) >= TUNNELS_PER_KEY_MAX:
            return
        self._opening = True
        if not self._pool.tenants.tunnels.take(self._tenant):
            self._opening = False
            if not self.all_tunnels:
                self._fail(failure(Reason.TUNNELS_MAX, "the pod has too many tunnels"))
            return
        self._pool.credentials.obtain(self.key.source, self._dial_with)

    def _dial_with(self, context: TlsContext | None) -> None:
        if self._closed:
            return
        if context is None:
            detail = f"there is no certificate for {self.key.source}"
            self._fail(failure(Reason.NO_CERTIFICATE, detail))
            return

        def dialled(result: socket.socket | DialError) -> None:
            self._dial = None
            self._dialled(context, result)

        self._pool.slow.start(self)
        self._dial = self._pool.dialer.dial(self._netns_fd, self.key.dial, dialled, self._tenant)

    def slow(self) -> None:
        """Neither the connect nor the handshake has ended in time."""
        if self._opening and not self._usable:
            for waiter in list(self.waiters):
                self._pool.reactor.serve(waiter, waiter.on_slow)

    def on_bug(self) -> None:
        """Nothing to release: the dial goes on."""

    def _dialled(self, context: TlsContext, result: socket.socket | DialError) -> None:
        if isinstance(result, DialError):
            reason, detail = Reason.CONNECT_FAILED, result.value
            flag = reason.flag
            if result is DialError.TIMEOUT:
                flag, detail = Flag.NETWORK_POLICY, f"{detail}; {BLOCKED_HINT}"
            self._fail(PoolFailure(reason, detail, flag))
            return
        tls = TlsConnection(context, server=False, judge=expect_one_of(self.key.expected))
        tunnel = Tunnel(
            self._pool.reactor,
            self._pool.keepalive,
            result,
            tls,
            Session(Role.CLIENT, CLIENT_SETTINGS),
            self,
        )
        tunnel.pay_with(self._pool.tenants.account(self._tenant))
        self.all_tunnels[tunnel] = None
        self._handshaking = tunnel
        tunnel.start()

    def _fail(self, why: PoolFailure) -> None:
        """Fail every connection that waited for this dial; the next one tries again."""
        if self._opening:
            self._opening = False
            self._pool.tenants.tunnels.give(self._tenant)
        waiters, self.waiters = self.waiters, {}
        for waiter in waiters:
            self._pool.waiting.stop(waiter)
            self._pool.reactor.serve(waiter, waiter.on_no_tunnel, why)
        self._pool.drop(self)

    # -- what the tunnel says --------------------------------------------------------------------

    def tunnel_opened(self, tunnel: Tunnel, _peer: SpiffeId) -> None:
        self._opening = False
        self._handshaking = None
        self._usable[tunnel] = self._pool.credentials.term(tunnel.peer_not_after_s).turn_s
        self._pool.now_idle(tunnel, self._tenant)
        self._serve_waiters()
        if self._pool.draining:
            tunnel.drain()

    def tunnel_requested(self, tunnel: Tunnel, request: RequestReceived) -> None:
        raise AssertionError("a client's session passes no requests")

    def tunnel_freed(self, tunnel: Tunnel) -> None:
        if self.waiters:
            self._serve_waiters()
        if not tunnel.streams and tunnel in self._usable:
            self._pool.now_idle(tunnel, self._tenant)

    def tunnel_draining(self, tunnel: Tunnel) -> None:
        self._usable.pop(tunnel, None)

    def tunnel_closed(self, tunnel: Tunnel, end: TunnelEnd, detail: str) -> None:
        self._usable.pop(tunnel, None)
        self.all_tunnels.pop(tunnel, None)
        self._pool.not_idle(tunnel, self._tenant)
        self._pool.probation.stop(tunnel)
        if tunnel is self._handshaking:
            self._handshaking = None
            self._fail(failure_of(end, detail))
            return
        self._pool.tenants.tunnels.give(self._tenant)
        if end is TunnelEnd.DISMISSED and tunnel.refusal is not None:
            self._pool.on_dismissed(tunnel.refusal, self._tenant, str(self.key.dial))
        if self.waiters:
            self._serve_waiters()
        self._pool.drop(self)

    def drain(self) -> None:
        # One in its handshake has streams to come.
        for tunnel in list(self.all_tunnels):
            if tunnel is not self._handshaking:
                tunnel.drain()

    def retire(self) -> None:
        """Finish what is open, if the peer lives; those that wait may try elsewhere."""
        self._closed = True
        if self._dial is not None:
            self._dial.abandon()
            self._dial = None
        if self._handshaking is not None:
            self._handshaking.close(TunnelEnd.RETIRED)  # fails those that wait
        elif self.waiters or self._opening:
            self._fail(failure_of(TunnelEnd.RETIRED, ""))
        for tunnel in list(self.all_tunnels):
            tunnel.retire()
            if not tunnel.closed:
                tunnel.probe()
                self._pool.probation.start(tunnel)

    def close(self, end: TunnelEnd) -> None:
        self._closed = True
        if self._dial is not None:
            self._dial.abandon()
        if self._opening and self._handshaking is None:
            self._opening = False
            self._pool.tenants.tunnels.give(self._tenant)
        for tunnel in list(self.all_tunnels):
            tunnel.close(end)
        for waiter in list(self.waiters):
            self._pool.waiting.stop(waiter)
        self.waiters.clear()
