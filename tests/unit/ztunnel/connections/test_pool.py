"""The choice of a tunnel: limits, waiting, failures, keys. Tunnels are real, in memory."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from control.kit.clock import SystemClock
from control.model.address import parse_endpoint
from tests.support.certificates import Authority, make_authority
from tests.support.engine.rest import come_to_rest
from tests.support.engine.tunnel_memory import CLIENT, SERVER, FakeTime, User
from ztunnel.connections import pool
from ztunnel.connections.pool import (
    IDLE_S,
    STREAMS_PER_TUNNEL_MAX,
    WAIT_S,
    WAITERS_PER_KEY_MAX,
    Pool,
    PoolKey,
)
from ztunnel.connections.pool_failure import PoolFailure
from ztunnel.hbone.session import Session
from ztunnel.hbone.settings import Role, SessionSettings
from ztunnel.loop.reactor import WATCH_BOTH, Reactor
from ztunnel.loop.served import Served
from ztunnel.refusals import Flag, Reason
from ztunnel.tenants.book import Tenants
from ztunnel.tenants.tenancy import Kind, Tenancy
from ztunnel.transport.credentials import Credentials
from ztunnel.transport.dial import DialDone, DialError
from ztunnel.transport.ends import RelayEnd, TunnelEnd
from ztunnel.transport.keepalive import Keepalive
from ztunnel.transport.tls import TlsConnection, TlsContext, expect_trust_domain
from ztunnel.transport.tunnel import Tunnel

TENANT = Tenancy(Kind.POD, "demo/client")
KEY = PoolKey("pod", CLIENT, (SERVER,), parse_endpoint("10.0.0.2:15008"))


class FakeDialer:
    """Connects to an in-memory server tunnel when the test says so."""

    source_not_shown = 0

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self.waiting: list[DialDone] = []

    def dial(self, netns_fd: int, target: object, done: DialDone, _: object = None) -> None:
        self.waiting.append(done)

    def dial_app(self, *_: object, **_more: object) -> None:
        raise AssertionError("a pool dials tunnels")

    def leave(self, netns_fd: int) -> None:
        raise AssertionError("the engine's business")

    def answer(self) -> Tunnel:
        ours, theirs = socket.socketpair()
        for sock in (ours, theirs):
            sock.setblocking(False)
        server = self._rig.serve(theirs)
        self._rig.reactor.watch(ours.fileno(), self, WATCH_BOTH)
        self.waiting.pop(0)(ours)
        self._rig.settle()
        return server

    def on_ready(self, events: int) -> None:
        raise AssertionError("the tunnel has taken over")

    def on_bug(self) -> None:
        raise AssertionError("a bug")


class Rig:
    def __init__(self, authority: Authority) -> None:
        self.authority = authority
        self.time = FakeTime()
        self.bugs: list[Served] = []
        self.reactor = Reactor(self.bugs.append, self.time)
        self.server_context = TlsContext(authority.issue(str(SERVER)))
        self.settings = SessionSettings(max_concurrent_streams=200)
        self.timers = Keepalive(self.reactor)
        self.credentials = Credentials(
            self.reactor, SystemClock(), lambda _identity, _waiting: None
        )
        self.credentials.put(CLIENT, authority.issue(str(CLIENT)))
        self.dialer = FakeDialer(self)
        self.tenants = Tenants(20_000)
        self.pool = Pool(self.reactor, self.timers, self.credentials, self.dialer, self.tenants)
        self.servers: list[Tunnel] = []

    def serve(self, sock: socket.socket) -> Tunnel:
        tls = TlsConnection(self.server_context, True, expect_trust_domain("cluster.local"))
        session = Session(Role.SERVER, self.settings)
        tunnel = Tunnel(self.reactor, self.timers, sock, tls, session, User())
        tunnel.start()
        self.servers.append(tunnel)
        return tunnel

    def settle(self) -> None:
        come_to_rest(self.reactor, self.timers, self.time)

    def acquire(self) -> Want:
        want = Want()
        self.pool.slot(-1, KEY, TENANT).acquire(want)
        return want

    def pass_s(self, seconds: float) -> None:
        self.time.now_s += seconds
        self.settle()


class Want:
    """Somebody who wants a stream, and takes one at once."""

    def __init__(self) -> None:
        self.tunnel: Tunnel | None = None
        self.why: PoolFailure | None = None
        self.slow = 0

    def on_tunnel(self, tunnel: Tunnel) -> None:
        self.tunnel = tunnel
        tunnel.adopt(tunnel.session.request("10.0.0.2:80", []), self)  # type: ignore[arg-type]

    def on_no_tunnel(self, why: PoolFailure) -> None:
        self.why = why

    def on_slow(self) -> None:
        self.slow += 1

    def on_tunnel_lost(self, reason: RelayEnd) -> None:
        pass

    def leave(self) -> None:
        assert self.tunnel is not None
        stream = next(s for s in self.tunnel.session.streams.values() if s.owner is self)
        self.tunnel.session.reset(stream, 8)
        self.tunnel.stream_over(stream)

    def on_bug(self) -> None:
        raise AssertionError("a bug")


@pytest.fixture(scope="module")
def authority() -> Authority:
    return make_authority()


@pytest.fixture
def rig(authority: Authority) -> Iterator[Rig]:
    made = Rig(authority)
    yield made
    made.pool.forget_pod("pod")
    for server in made.servers:
        server.close(TunnelEnd.CUT)
    made.reactor.turn(0)
    made.reactor.close()
    assert not made.bugs


def test_racers_share_one_dial(rig: Rig) -> None:
    wants = [rig.acquire() for _ in range(5)]
    assert len(rig.dialer.waiting) == 1
    rig.dialer.answer()
    assert len({want.tunnel for want in wants}) == 1
    assert wants[0].tunnel is not None
    later = rig.acquire()
    assert later.tunnel is wants[0].tunnel
    assert rig.dialer.waiting == []


def test_a_full_tunnel_makes_the_next_one_dial(rig: Rig) -> None:
    first = rig.acquire()
    rig.dialer.answer()
    wants = [rig.acquire() for _ in range(STREAMS_PER_TUNNEL_MAX)]
    assert all(want.tunnel is first.tunnel for want in wants[:-1])
    assert wants[-1].tunnel is None
    rig.dialer.answer()
    assert wants[-1].tunnel not in (None, first.tunnel)
    assert rig.pool.tunnels == 2


def test_a_peer_that_allows_fewer_streams_is_obeyed(rig: Rig) -> None:
    rig.settings = SessionSettings(max_concurrent_streams=2)
    first = rig.acquire()
    rig.dialer.answer()
    second, third = rig.acquire(), rig.acquire()
    assert second.tunnel is first.tunnel
    assert third.tunnel is None
    first.leave()
    assert third.tunnel is second.tunnel, "a freed place is taken by who waits"


def test_a_failed_dial_fails_all_that_waited_and_the_next_tries_anew(rig: Rig) -> None:
    wants = [rig.acquire() for _ in range(3)]
    rig.dialer.waiting.pop()(DialError.REFUSED)
    assert {want.why and want.why.detail for want in wants} == {"connection refused"}
    rig.acquire()
    assert len(rig.dialer.waiting) == 1


def test_a_timeout_hints_at_a_network_policy(rig: Rig) -> None:
    want = rig.acquire()
    rig.dialer.waiting.pop()(DialError.TIMEOUT)
    assert want.why is not None
    assert want.why.flag is Flag.NETWORK_POLICY
    assert "15008" in want.why.detail
    assert "15008" not in DialError.TIMEOUT.value, "dials outside the mesh go to other ports"


def test_a_server_of_the_wrong_identity_is_a_tls_failure(rig: Rig) -> None:
    rig.server_context = TlsContext(rig.authority.issue("spiffe://cluster.local/ns/demo/sa/mal"))
    want = rig.acquire()
    rig.dialer.answer()
    assert want.why is not None
    assert (want.why.flag, want.why.reason.word) == (Flag.TLS_FAILURE, "tls_failed")
    assert rig.pool.tunnels == 0


def test_no_certificate_is_an_identity_error(rig: Rig) -> None:
    rig.credentials.forget(CLIENT)
    want = rig.acquire()
    rig.credentials.fail(CLIENT)
    assert want.why is not None
    assert want.why.flag is Flag.IDENTITY_ERROR


def test_waiting_is_bounded_in_number_and_time(rig: Rig) -> None:
    wants = [rig.acquire() for _ in range(WAITERS_PER_KEY_MAX)]
    over = rig.acquire()
    assert over.why is not None
    assert over.why.reason.word == "pool_full"
    rig.pass_s(WAIT_S)
    assert {want.why and want.why.reason.word for want in wants} == {"pool_timeout"}


def test_who_withdraws_is_not_served(rig: Rig) -> None:
    want, other = rig.acquire(), rig.acquire()
    rig.pool.withdraw(KEY, want)
    rig.dialer.answer()
    assert want.tunnel is None
    assert want.why is None
    assert other.tunnel is not None


def test_an_idle_tunnel_is_closed_and_a_used_one_is_not(rig: Rig) -> None:
    want = rig.acquire()
    rig.dialer.answer()
    for _ in range(int(IDLE_S / 10) + 1):
        rig.pass_s(10)
    assert rig.pool.tunnels == 1
    want.leave()
    for _ in range(int(IDLE_S / 10) + 1):
        rig.pass_s(10)
    assert rig.pool.tunnels == 0
    assert rig.pool.view() == []


def test_a_draining_tunnel_gets_no_new_streams(rig: Rig) -> None:
    first = rig.acquire()
    server = rig.dialer.answer()
    server.drain()
    rig.settle()
    second = rig.acquire()
    assert second.tunnel is None
    rig.dialer.answer()
    assert second.tunnel not in (None, first.tunnel)


def test_a_drain_fails_nobody_who_waits(rig: Rig) -> None:
    """Neither one whose tunnel is on its way, nor one that comes later."""
    first = rig.acquire()
    rig.pool.drain()
    rig.dialer.answer()
    assert first.tunnel is not None
    second = rig.acquire()
    assert second.tunnel is None
    rig.dialer.answer()
    assert second.tunnel not in (None, first.tunnel)
    first.leave()
    second.leave()
    rig.settle()
    assert rig.pool.tunnels == 0


def test_keys_do_not_share_tunnels(rig: Rig) -> None:
    rig.acquire()
    rig.dialer.answer()
    for other in (
        PoolKey("other-pod", CLIENT, (SERVER,), KEY.dial),
        PoolKey("pod", SERVER, (SERVER,), KEY.dial),
        PoolKey("pod", CLIENT, (SERVER, CLIENT), KEY.dial),
        PoolKey("pod", CLIENT, (SERVER,), parse_endpoint("10.0.0.3:15008")),
    ):
        want = Want()
        rig.pool.slot(-1, other, TENANT).acquire(want)
        assert want.tunnel is None


def test_a_deleted_pods_dial_is_not_answered(rig: Rig) -> None:
    want = rig.acquire()
    rig.pool.forget_pod("pod")
    assert want.tunnel is None
    assert rig.pool.tunnels == 0


def test_a_server_that_is_dismissed_is_told_of_and_the_place_of_its_tunnel_comes_back(
    rig: Rig,
) -> None:
    heard: list[tuple[Reason, Tenancy]] = []
    rig.pool.on_dismissed = lambda reason, tenant, _peer: heard.append((reason, tenant))
    want = rig.acquire()
    rig.dialer.answer()
    assert want.tunnel is not None
    assert rig.tenants.tunnels.used == 1
    want.tunnel.dismiss(Reason.SILENT_RECORDS, "")
    rig.settle()
    assert heard == [(Reason.SILENT_RECORDS, TENANT)]
    assert rig.tenants.tunnels.used == 0


def test_over_its_tunnels_a_pod_is_refused(rig: Rig) -> None:
    while rig.tenants.tunnels.take(TENANT):
        pass
    late = rig.acquire()
    assert late.why is not None
    assert late.why.reason is Reason.TUNNELS_MAX
    rig.tenants.tunnels.give(TENANT, rig.tenants.tunnels.used)


def test_a_tunnel_gets_no_new_streams_once_its_servers_certificate_is_about_to_end(
    rig: Rig,
) -> None:
    first = rig.acquire()
    rig.dialer.answer()
    assert first.tunnel is not None
    term = rig.credentials.term(first.tunnel.peer_not_after_s)
    rig.pass_s(term.turn_s - rig.time.now_s - 5)
    assert rig.acquire().tunnel is first.tunnel
    rig.pass_s(10)
    later = rig.acquire()
    rig.dialer.answer()
    assert later.tunnel not in (None, first.tunnel)
    assert not first.tunnel.closed


def test_tunnels_that_only_finish_their_streams_take_no_place_of_others(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "TUNNELS_PER_KEY_MAX", 1)
    held = [rig.acquire()]
    rig.dialer.answer()
    for _ in range(3):
        rig.pass_s(3600)
        held.append(rig.acquire())
        rig.dialer.answer()
    assert len({each.tunnel for each in held}) == len(held)
