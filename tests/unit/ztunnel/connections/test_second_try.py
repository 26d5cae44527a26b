"""Each way to lose a peer, at each stage of a connection: tried once more, or ended."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from control.model.address import parse_address
from tests.support.certificates import Authority, make_authority
from tests.support.engine.peers_rig import OLD, ONE, TWO, VIP, Peer, Rig, Taken, is_closed, made_rig
from tests.support.engine.tunnel_memory import CLIENT
from tests.support.engine.tunnel_mesh import address_entry
from ztunnel.connections.engine import LOOK_S, RESPONSE_S, SILENT_S
from ztunnel.connections.pool import PROBATION_S
from ztunnel.loop.reactor import WATCH_BOTH
from ztunnel.mesh.entries import Entry, Op
from ztunnel.transport.dial import DialError
from ztunnel.transport.keepalive import HANDSHAKE_S
from ztunnel.transport.tls import TlsContext


@pytest.fixture(scope="module")
def authority() -> Authority:
    return make_authority()


@pytest.fixture
def rig(authority: Authority) -> Iterator[Rig]:
    with made_rig(authority) as made:
        yield made


def _cut(rig: Rig, peer: Peer) -> None:
    peer.cut()


def _silent(rig: Rig, peer: Peer) -> None:
    peer.fall_silent()
    rig.pass_s(LOOK_S + SILENT_S + LOOK_S)


def _replaced(rig: Rig, peer: Peer) -> None:
    """Another pod has the address, then the old one is gone; the link to it is dead."""
    peer.fall_silent()
    rig.apply(address_entry(replace(OLD, uid="fresh", name="fresh")))
    rig.apply(Entry(Op.REMOVE_ADDRESS, "old"))
    rig.pass_s(LOOK_S)


WAYS: dict[str, Callable[[Rig, Peer], None]] = {
    "cut": _cut,
    "silent": _silent,
    "replaced": _replaced,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("warm", [False, True], ids=["fresh tunnel", "pooled tunnel"])
def test_a_request_without_an_answer_is_made_once_more(rig: Rig, way: str, warm: bool) -> None:
    if warm:
        rig.accept()
        peer = rig.connect()
        peer.answer()
        app = rig.accept(b"question")
    else:
        app = rig.accept(b"question")
        peer = rig.connect()
    assert len(peer.user.requests) == 1
    WAYS[way](rig, peer)
    second = rig.connect()
    assert second.target == peer.target
    assert rig.moved == 1
    second.answer()
    assert not is_closed(app)
    assert rig.engine.counters.refusals.get("tunnel_lost", 0) == 0
    second.cut()
    assert is_closed(app), "an answered connection is not tried again"


@pytest.mark.parametrize("way", ["cut", "silent"])
def test_it_is_tried_once_more_and_no_more(rig: Rig, way: str) -> None:
    app = rig.accept(b"question")
    for _ in range(2):
        peer = rig.connect()
        WAYS[way](rig, peer)
    rig.pass_s(RESPONSE_S)
    assert is_closed(app)
    assert rig.moved == 1
    assert rig.dialer.dials == []


@pytest.mark.parametrize("way", WAYS)
def test_an_open_connection_is_never_made_again(rig: Rig, way: str) -> None:
    app = rig.accept(b"question")
    peer = rig.connect()
    peer.answer()
    WAYS[way](rig, peer)
    rig.pass_s(30)
    assert is_closed(app)
    assert rig.moved == 0
    assert rig.dialer.dials == []


def test_a_peer_that_lives_but_whose_app_is_slow_keeps_the_request(rig: Rig) -> None:
    app = rig.accept()
    peer = rig.connect()
    rig.pass_s(RESPONSE_S - 2)
    assert rig.moved == 0
    peer.answer()
    assert not is_closed(app)


def test_a_lost_endpoint_is_not_drawn_again(rig: Rig) -> None:
    rig.destination = VIP
    for _ in range(8):
        app = rig.accept(b"question")
        (first, done), *_ = rig.dialer.dials
        rig.dialer.dials.clear()
        done(DialError.TIMEOUT)
        rig.settle()
        ((second, done),) = rig.dialer.dials
        assert {first.address, second.address} == {ONE.addresses[0], TWO.addresses[0]}
        rig.dialer.dials.clear()
        done(DialError.TIMEOUT)
        rig.settle()
        assert is_closed(app)
        assert rig.dialer.dials == []


def test_an_endpoint_of_another_identity_is_left_for_one_that_is_who_it_should_be(
    rig: Rig, authority: Authority
) -> None:
    """Its address may be another pod's by now, and the news of it under way."""
    rig.destination = VIP
    right, rig.server_context = rig.server_context, TlsContext(authority.issue(str(CLIENT)))
    app = rig.accept(b"question")
    first = rig.connect()
    rig.server_context = right
    second = rig.connect()
    assert {first.target.address, second.target.address} == {ONE.addresses[0], TWO.addresses[0]}
    second.answer()
    assert not is_closed(app)


def test_an_endpoint_whose_ztunnel_is_stopped_is_left_after_the_handshakes_time(rig: Rig) -> None:
    rig.destination = VIP
    app = rig.accept(b"question")
    target, done = rig.dialer.dials.pop(0)
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    rig.apps.append(theirs)
    rig.reactor.watch(ours.fileno(), Taken(), WATCH_BOTH)
    done(ours)
    rig.pass_s(HANDSHAKE_S + 1)
    second = rig.connect()
    assert second.target != target
    second.answer()
    assert not is_closed(app)


def test_a_peer_that_cannot_be_reached_at_its_own_address_fails_at_once(rig: Rig) -> None:
    app = rig.accept()
    rig.dialer.dials.pop()[1](DialError.REFUSED)
    rig.settle()
    assert is_closed(app)
    assert rig.moved == 0


def test_an_address_that_left_the_mesh_is_no_reason_for_plaintext(rig: Rig) -> None:
    app = rig.accept(b"question")
    peer = rig.connect()
    peer.fall_silent()
    rig.apply(Entry(Op.REMOVE_ADDRESS, "old"))
    rig.pass_s(PROBATION_S + 1)
    assert is_closed(app)
    assert rig.dialer.dials == []


def test_the_tunnels_of_a_pod_are_not_those_of_the_next_at_its_address(rig: Rig) -> None:
    """Nor does a line name the pod that has the address now."""
    old_app = rig.accept()
    peer = rig.connect()
    peer.answer()
    rig.apply(address_entry(replace(OLD, uid="fresh", name="fresh")))
    rig.accept()
    fresh = rig.connect()
    assert fresh.tunnel is not peer.tunnel
    fresh.answer()
    rig.apply(Entry(Op.REMOVE_ADDRESS, "old"))
    assert not is_closed(old_app), "it lives: what is open may finish"
    peer.cut()
    (line,) = [each for each in rig.lines if "complete" in each]
    assert "dst.workload=old" in line
    retired = [each["workload"] for each in rig.engine.pool.view() if each["retired"]]
    assert retired == []


def test_an_idle_tunnel_goes_with_its_workload(rig: Rig) -> None:
    rig.accept()
    rig.connect().answer(401)
    assert rig.engine.pool.tunnels == 1
    rig.apply(address_entry(replace(OLD, addresses=(parse_address("10.0.0.9"),))))
    assert rig.engine.pool.tunnels == 0
    assert rig.engine.pool.view() == []


def test_a_dial_to_a_workload_that_goes_is_given_up(rig: Rig) -> None:
    app = rig.accept()
    rig.apply(address_entry(replace(OLD, uid="fresh", name="fresh")))
    rig.apply(Entry(Op.REMOVE_ADDRESS, "old"))
    assert len(rig.dialer.dials) == 1
    rig.connect().answer()
    assert not is_closed(app)


def test_a_gone_workload_that_lives_on_keeps_its_open_connections(rig: Rig) -> None:
    app = rig.accept()
    peer = rig.connect()
    peer.answer()
    rig.apply(Entry(Op.REMOVE_ADDRESS, "old"))
    rig.pass_s(3 * PROBATION_S)
    assert not is_closed(app)
    assert rig.engine.pool.tunnels == 1
