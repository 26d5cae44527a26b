"""An endpoint whose host is dead: its first connections wait a moment, the next ones do not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from control.model.address import Address
from control.model.workload import Service
from tests.support.certificates import Authority, make_authority
from tests.support.engine.peers_rig import OLD, ONE, TWO, VIP, WEB, Peer, Rig, is_closed, made_rig
from tests.support.engine.tunnel_mesh import address_entry
from ztunnel.connections.doubts import PAUSE_S
from ztunnel.connections.engine import LOOK_S, SILENT_S
from ztunnel.connections.pool import SLOW_S
from ztunnel.transport.dial import DialError

DEAD, ALIVE = ONE.addresses[0], TWO.addresses[0]


@pytest.fixture(scope="module")
def authority() -> Authority:
    return make_authority()


@pytest.fixture
def rig(authority: Authority) -> Iterator[Rig]:
    with made_rig(authority) as made:
        made.destination = VIP
        yield made


def dialled(rig: Rig) -> list[Address]:
    return [target.address for target, _ in rig.dialer.dials]


def alive(rig: Rig) -> Peer:
    """Both are dialled: the dead one's dial goes on, and this is the other."""
    while set(dialled(rig)) != {DEAD, ALIVE}:
        rig.accept(b"question")
    rig.dialer.dials.sort(key=lambda dial: dial[0].address != ALIVE)
    return rig.connect()


def answer_all(peer: Peer) -> int:
    count = len(peer.user.requests)
    for _ in range(count):
        peer.answer()
    return count


def test_those_that_wait_for_it_go_elsewhere(rig: Rig) -> None:
    peer = alive(rig)
    answer_all(peer)
    assert rig.moved == 0
    rig.pass_s(SLOW_S + 1)
    waited = answer_all(peer)
    assert waited >= 1
    assert rig.moved == waited
    assert not any(map(is_closed, rig.apps))


def test_others_do_not_try_it_for_a_while_and_then_one_does(rig: Rig) -> None:
    peer = alive(rig)
    rig.pass_s(SLOW_S + 1)
    answer_all(peer)
    rig.dialer.dials.pop()[1](DialError.TIMEOUT)
    for _ in range(30):
        rig.accept(b"question")
        assert dialled(rig) == []
        assert answer_all(peer) == 1, "at once"
    rig.pass_s(PAUSE_S + 1)
    for _ in range(30):
        rig.accept(b"question")
    assert dialled(rig) == [DEAD]
    assert answer_all(peer) == 29, "the one that tries"
    rig.pass_s(SLOW_S + 1)
    assert answer_all(peer) == 1, "has not to wait for long"


def test_one_that_answers_again_gets_its_part_again(rig: Rig) -> None:
    peer = alive(rig)
    rig.pass_s(SLOW_S + 1)
    answer_all(peer)
    back = rig.connect()
    rig.pass_s(PAUSE_S + 1)
    for _ in range(30):
        rig.accept(b"question")
        answer_all(peer)
        answer_all(back)
    for _ in range(30):
        rig.accept(b"question")
    assert len(back.user.requests) > 5
    assert answer_all(peer) > 5


def test_a_tunnel_that_falls_silent_is_left_by_those_that_come_next(rig: Rig) -> None:
    rig.accept(b"question")
    first = rig.connect()
    first.fall_silent()
    rig.pass_s(LOOK_S + SILENT_S + LOOK_S)
    peer = rig.connect()
    assert peer.target != first.target
    assert answer_all(peer) == 1
    for _ in range(20):
        rig.accept(b"question")
        assert answer_all(peer) == 1
    assert rig.dialer.dials == []


def test_an_only_endpoint_is_waited_for(rig: Rig) -> None:
    rig.destination = type(VIP)(OLD.addresses[0], 80)
    app = rig.accept(b"question")
    rig.pass_s(SLOW_S + 1)
    assert len(rig.dialer.dials) == 1
    late = rig.accept(b"question")
    peer = rig.connect()
    assert answer_all(peer) == 2
    assert rig.moved == 0
    assert not is_closed(app)
    assert not is_closed(late)


def test_a_pinned_client_stays_with_its_second_choice_and_goes_back(rig: Rig) -> None:
    pinned = Service(
        WEB.name,
        WEB.namespace,
        WEB.hostname,
        ports=WEB.ports,
        addresses=WEB.addresses,
        affinity_s=60,
    )
    rig.apply(address_entry(pinned))
    rig.accept(b"question")
    (own,) = dialled(rig)
    rig.pass_s(SLOW_S + 1)
    assert len(dialled(rig)) == 2
    dial = rig.dialer.dials.pop(0)
    peer = rig.connect()
    assert peer.target.address != own
    for _ in range(20):
        rig.accept(b"question")
    assert answer_all(peer) == 21
    rig.dialer.dials.append(dial)
    back = rig.connect()
    rig.pass_s(PAUSE_S + 1)
    for _ in range(20):
        rig.accept(b"question")
        answer_all(back)
    assert answer_all(peer) == 0, "it is back"
