"""A peer's tunnel to a pod: verified once, and each of its streams authorized."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from control.model.address import Endpoint
from tests.support.certificates import Authority, make_authority
from tests.support.engine.inbound_rig import CLIENT, PEER, Caller, InboundRig, is_closed, only
from tests.support.engine.meshes import key, pod, service, spiffe
from ztunnel.connections.engine import FAREWELL_S, SWEEP_S, TUNNEL_IDLE_S
from ztunnel.connections.inbound_tunnel import ADMITTED_MAX, REFUSED_RUNNING_MAX
from ztunnel.connections.newcomers import WAITING_MAX, WORKLOAD_S
from ztunnel.hbone.errors import ErrorCode
from ztunnel.hbone.frames import PING, pack_frame
from ztunnel.mesh.entries import Entry, Op
from ztunnel.tenants.book import Tenants
from ztunnel.tenants.work import VIOLATION_WORK_S, WORK_BURST_S, WORK_WAIT_S_MAX
from ztunnel.transport.credentials import Term
from ztunnel.transport.keepalive import HANDSHAKE_S
from ztunnel.transport.tunnel import Tunnel


@pytest.fixture(scope="module")
def authority() -> Authority:
    return make_authority()


@pytest.fixture
def rig(authority: Authority) -> Iterator[InboundRig]:
    made = InboundRig(authority)
    made.certify()
    yield made
    made.close()


def test_a_request_is_dialled_with_the_permit_for_its_target(rig: InboundRig) -> None:
    tunnel = rig.tunnel()
    assert tunnel.peer == spiffe("server")
    caller = rig.request(tunnel)
    (permit,) = rig.dialer.permits
    assert permit.connection.source == spiffe("client")
    assert permit.connection.destination_port == 8080
    assert caller.status is None
    rig.dialer.answer()
    rig.settle()
    assert caller.status == 200


def test_the_client_is_shown_with_its_own_port_and_the_tunnels_address(rig: InboundRig) -> None:
    tunnel = rig.tunnel()
    rig.request(tunnel, "10.0.0.2:8080", ("forwarded", 'for="10.0.0.1:40123"'))
    rig.request(tunnel, "10.0.0.2:8080", ("forwarded", 'for="10.0.0.99:40123"'))
    assert rig.dialer.clients == [Endpoint(CLIENT.address, 40123), CLIENT]


@pytest.mark.parametrize(
    ("asked", "status", "reason"),
    [
        ("10.0.0.9:8080", 400, "destination_mismatch"),
        ("nowhere:80", 503, "unknown_hostname"),
        ("10.0.0.2:15008", 503, "recursion"),
        ("nonsense", 400, "bad_authority"),
    ],
)
def test_a_request_for_something_else_is_answered_no(
    rig: InboundRig, asked: str, status: int, reason: str
) -> None:
    tunnel = rig.tunnel()
    caller = rig.request(tunnel, asked)
    assert (caller.status, caller.ended) == (status, True)
    assert rig.refusals == {reason: 1}
    assert rig.dialer.permits == []
    assert rig.engine.connections == 0
    assert not tunnel.closed


def test_policy_says_no_with_401(rig: InboundRig) -> None:
    rig.change(only("somebody-else"))
    caller = rig.request(rig.tunnel())
    assert caller.status == 401
    assert rig.refusals == {"policy": 1}


def test_our_own_listeners_are_no_apps(rig: InboundRig) -> None:
    rig.pod.own_ports.add(8080)
    assert rig.request(rig.tunnel()).status == 503
    assert rig.refusals == {"recursion": 1}


def test_a_yes_is_remembered_until_the_state_changes(rig: InboundRig) -> None:
    tunnel = rig.tunnel()
    for _ in range(2):
        rig.request(tunnel)
    assert len(rig.dialer.permits) == 2
    assert rig.dialer.permits[0] is rig.dialer.permits[1]
    rig.change(only("somebody-else"))
    assert rig.request(tunnel).status == 401
    assert len(rig.dialer.permits) == 2


def test_what_is_remembered_is_bounded(rig: InboundRig) -> None:
    tunnel = rig.tunnel()
    for number in range(ADMITTED_MAX + 3):
        rig.request(tunnel, f"10.0.0.2:{9000 + number}")
    (serving,) = rig.pod.tunnels
    assert len(serving._user._admitted) == ADMITTED_MAX
    assert len(rig.dialer.permits) == ADMITTED_MAX + 3


def test_a_pods_own_name_leads_to_its_port(rig: InboundRig) -> None:
    web = service("web", "10.1.0.1")
    rig.change(web, pod("server", "10.0.0.2", services={key("web"): ()}))
    rig.request(rig.tunnel(), f"{web.hostname}:80")
    assert [each.connection.destination_port for each in rig.dialer.permits] == [8080]


def test_the_telemetry_names_the_service_that_the_client_dialled(rig: InboundRig) -> None:
    names = ("aaa", "zzz")
    services = [service(name, f"10.1.0.{number}") for number, name in enumerate(names)]
    rig.change(*services, pod("server", "10.0.0.2", services={key(each): () for each in names}))
    tunnel = rig.tunnel()
    said = [f";host={each.hostname}" for each in services] + ["", ";host=invented"]
    for _ in range(2):
        for host in said:
            field = ("forwarded", f'for="10.0.0.1:1234"{host}')
            rig.request(tunnel, "10.0.0.2:8080", field)
            rig.dialer.answer()
            rig.settle()
    told = [each.outcome.parties.service for each in rig.pod.inbound]
    assert [each and each.name for each in told] == ["aaa", "zzz", None, None] * 2
    rows = [row for piece in rig.engine.counters.changed(100) for row in piece]
    opened = {
        labels["destination_service_name"]: number
        for name, labels, number in rows
        if name == "istio_tcp_connections_opened_total"
    }
    assert opened == {"aaa": 2, "zzz": 2, "unknown": 4}


def test_lies_are_not_remembered(rig: InboundRig) -> None:
    tunnel = rig.tunnel()
    for number in range(3):
        field = ("forwarded", f'for="10.0.0.1:1234";host=invented-{number}')
        rig.request(tunnel, "10.0.0.2:8080", field)
    (serving,) = rig.pod.tunnels
    assert len(serving._user._admitted) == 0


def test_the_source_workload_is_the_one_whose_address_and_certificate_agree(
    rig: InboundRig,
) -> None:
    for peer, known in ((PEER, True), (spiffe("impostor"), False)):
        rig.request(rig.tunnel(peer))
        connection = list(rig.pod.inbound)[-1]
        assert (connection.outcome.parties.source is not None) == known


def test_a_peer_of_another_trust_domain_is_refused(rig: InboundRig) -> None:
    foreign = replace(PEER, trust_domain="elsewhere")
    assert rig.tunnel(foreign).closed
    assert rig.refusals == {"peer_trust_domain": 1}
    assert rig.engine.tenants.handshakes.portions.used == 0


def test_a_pod_without_a_certificate_lets_nobody_in(authority: Authority) -> None:
    rig = InboundRig(authority)
    client = rig.tunnel()
    assert rig.asked == [spiffe("server")]
    assert not client.closed, "it waits"
    rig.engine.credentials.fail(spiffe("server"))
    rig.settle()
    assert client.closed
    assert rig.refusals == {"no_certificate": 1}
    assert rig.engine.tenants.handshakes.portions.used == 0
    rig.close()


def test_a_certificate_that_comes_after_the_pod_has_left_opens_nothing(
    authority: Authority,
) -> None:
    rig = InboundRig(authority)
    client = rig.tunnel()
    rig.engine.remove_pod("p")
    rig.certify()
    rig.settle()
    assert client.closed
    assert rig.refusals == {"no_certificate": 1}
    rig.close()


def test_a_pod_that_the_control_plane_does_not_know_has_no_tunnel(rig: InboundRig) -> None:
    tunnel = rig.tunnel(at=rig.stranger)
    assert not tunnel.closed
    rig.time.now_s += WORKLOAD_S
    rig.settle()
    assert tunnel.closed
    assert rig.refusals == {"unknown_local_workload": 1}


def test_a_peer_of_a_pod_that_has_just_started_waits_for_the_control_planes_word(
    rig: InboundRig,
) -> None:
    server = rig.pod.workload(rig.engine.state)
    assert server is not None
    rig.change(Entry(Op.REMOVE_ADDRESS, server.uid))
    tunnel = rig.tunnel()
    others = [rig.silence() for _ in range(WAITING_MAX)]
    assert is_closed(others[-1]), "so many wait for a pod, and no more"
    assert tunnel.peer is None
    assert len(rig.engine.tenants.handshakes) == 0
    rig.change(server)
    rig.engine.workloads_came()
    rig.settle()
    assert tunnel.peer == spiffe("server")
    caller = rig.request(tunnel)
    rig.dialer.answer()
    rig.settle()
    assert caller.status == 200


def test_the_oldest_silent_peer_makes_room_and_the_newcomer_is_served(rig: InboundRig) -> None:
    handshakes = rig.engine.tenants.handshakes
    silent = [rig.silence()]
    while not rig.refusals:
        silent.append(rig.silence())
    assert rig.refusals == {"handshake_displaced": 1}
    assert is_closed(silent[0])
    assert not any(is_closed(each) for each in silent[1:])
    held = handshakes.portions.used
    assert held < handshakes.portions.total
    rig.time.now_s += WORK_WAIT_S_MAX  # so many silent ones delay their own address
    rig.settle()
    assert rig.request(rig.tunnel()).stream.id == 1
    assert handshakes.portions.used == held - 1, "two were displaced, and the newcomer is done"


def test_a_peer_that_is_only_refused_is_slowed_and_then_dismissed(rig: InboundRig) -> None:
    rig.change(only("somebody-else"))
    tunnel = rig.tunnel()
    asked = 0
    while not tunnel.closed:
        caller = rig.request(tunnel)
        asked += 1
        if caller.status is None and not tunnel.closed:  # it is not read for a while
            (serving,) = rig.pod.tunnels
            assert rig.reactor.now_s < serving.tenant.not_before_s
            rig.time.now_s += WORK_WAIT_S_MAX
            rig.settle()  # the deadline
            rig.settle()
            assert caller.status == 401 or tunnel.closed
    assert asked == REFUSED_RUNNING_MAX
    assert rig.refusals == {"policy": asked, "only_refusals": 1}
    assert rig.engine.tenants.work.delayed > 1


def test_a_request_that_is_let_in_pays_for_what_was_refused_before(rig: InboundRig) -> None:
    tunnel = rig.tunnel()
    for _ in range(3):
        rig.request(tunnel, "nonsense")
    (serving,) = rig.pod.tunnels
    assert serving._user._refused_running == 3
    rig.request(tunnel)
    assert serving._user._refused_running == 0
    assert serving._user._stranger.debt_s == 0.0


@pytest.fixture
def small(authority: Authority) -> Iterator[InboundRig]:
    """A worker that may open few files: 17 idle tunnels, 102 connections."""
    made = InboundRig(authority, tenants=Tenants(400))
    made.certify()
    yield made
    made.close()


def test_idle_tunnels_of_a_peer_are_bounded_and_the_oldest_ends_in_order(
    small: InboundRig,
) -> None:
    rig = small
    tunnels = []
    for _ in range(30):
        tunnels.append(rig.tunnel())
        rig.engine.tenants.source(CLIENT.address).not_before_s = 0.0
    open_now = [each for each in tunnels if not each.closed]
    assert open_now == tunnels[-len(open_now) :]
    assert 8 <= len(open_now) <= 12
    assert all(each._user.draining for each in tunnels[: -len(open_now)])
    other = rig.tunnel(spiffe("other"))
    assert not other.closed
    assert rig.refusals == {}


def test_an_idle_tunnel_ends_after_its_time_even_if_the_peer_ignores_it(rig: InboundRig) -> None:
    busy, idle = rig.tunnel(), rig.tunnel()
    rig.request(busy)
    rig.reactor.unwatch(idle._sock.fileno())  # reads nothing any more
    for each in (*rig.pod.tunnels, busy, idle):
        rig.engine.keepalive.ping.stop(each)
    rig.time.now_s += TUNNEL_IDLE_S + SWEEP_S
    rig.settle()
    assert len(rig.pod.tunnels) == 2, "it has been told"
    rig.time.now_s += FAREWELL_S
    rig.settle()
    assert len(rig.pod.tunnels) == 1
    assert not busy.closed


def test_a_peer_over_its_connections_is_told_so_and_others_are_served(small: InboundRig) -> None:
    rig = small
    tunnel = rig.tunnel()
    callers = [rig.request(tunnel) for _ in range(100)]
    assert [each.status for each in callers].count(503) == 100 - 60  # two thirds of 90
    assert set(rig.refusals) == {"connections_max"}
    assert rig.request(rig.tunnel(spiffe("other"))).status is None


def test_a_peer_that_says_nothing_gives_its_place_back(rig: InboundRig) -> None:
    silent = rig.silence()
    assert rig.engine.tenants.handshakes.portions.used == 1
    rig.time.now_s += HANDSHAKE_S
    rig.settle()
    assert is_closed(silent)
    assert rig.engine.tenants.handshakes.portions.used == 0
    assert rig.refusals == {"handshake_timeout": 1}
    assert not rig.pod.tunnels


def test_a_peer_that_breaks_http2_owes_for_it_and_its_next_tunnel_is_read_later(
    rig: InboundRig,
) -> None:
    """Else it would dial again and spend another allowance of odd frames."""
    for _ in range(1 + int(WORK_BURST_S / VIOLATION_WORK_S)):
        tunnel = rig.tunnel()
        tunnel.session.outbound += pack_frame(PING, 0, 0, b"short")
        tunnel.touch()
        rig.settle()
        assert tunnel.closed
    assert set(rig.refusals) == {"http2"}
    assert rig.engine.tenants.peer(PEER).not_before_s > rig.time.now_s
    assert rig.request(rig.tunnel()).status is None
    assert rig.engine.tenants.peer(spiffe("other")).not_before_s == 0.0


def test_an_app_that_is_down_costs_its_clients_nothing(rig: InboundRig) -> None:
    """They are not to blame, and their other connections must not wait."""
    tunnel = rig.tunnel()
    for _ in range(10):
        caller = rig.request(tunnel)
        rig.dialer.fail()
        rig.settle()
        assert caller.status == 503
    assert rig.refusals == {"connect_failed": 10}
    peer = rig.engine.tenants.peer(PEER)
    assert (peer.refused, peer.debt_s) == (10, 0.0)


def test_a_peer_whose_certificate_is_about_to_end_is_told_to_dial_again(rig: InboundRig) -> None:
    tunnel = rig.tunnel()
    open_one = answered(rig, tunnel)
    rig.time.now_s = term(rig).turn_s + 1
    last = answered(rig, tunnel)
    assert (open_one.status, last.status) == (200, 200)
    assert tunnel.session.goaway_received
    assert not rig.refusals


def test_after_the_end_of_a_peers_certificate_no_request_is_let_in_and_what_is_open_goes_on(
    rig: InboundRig,
) -> None:
    tunnel = rig.tunnel()
    open_one = answered(rig, tunnel)
    rig.time.now_s = term(rig).end_s + 1
    late = rig.request(tunnel)
    assert late.reset == ErrorCode.REFUSED_STREAM
    assert not rig.dialer.is_dialling
    assert rig.refusals == {"peer_certificate": 1}
    rig.apps[0].send(b"still here")
    rig.settle()
    assert open_one.data == b"still here"
    assert answered(rig, rig.tunnel()).status == 200


def term(rig: InboundRig) -> Term:
    """The term of the peer of the only tunnel."""
    (tunnel,) = rig.pod.tunnels
    return rig.engine.credentials.term(tunnel.peer_not_after_s)


def answered(rig: InboundRig, tunnel: Tunnel) -> Caller:
    caller = rig.request(tunnel)
    rig.apps.append(rig.dialer.answer())
    rig.settle()
    return caller
