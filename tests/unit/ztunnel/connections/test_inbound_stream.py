"""A CONNECT from its request to its end: what is held, what is answered, who hears of the end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.certificates import Authority, make_authority
from tests.support.engine.inbound_rig import InboundRig, is_closed, only
from ztunnel.connections.first_word import PATIENCE_S
from ztunnel.hbone.errors import ErrorCode
from ztunnel.transport.dial import DialError
from ztunnel.transport.ends import TunnelEnd


@pytest.fixture(scope="module")
def authority() -> Authority:
    return make_authority()


@pytest.fixture
def rig(authority: Authority) -> Iterator[InboundRig]:
    made = InboundRig(authority)
    made.certify()
    yield made
    made.close()


def test_what_a_peer_says_before_the_app_is_there_is_held_for_it(rig: InboundRig) -> None:
    tunnel = rig.tunnel()
    caller = rig.request(tunnel)
    rig.say(caller, tunnel, b"early, ")
    rig.say(caller, tunnel, b"and the end", end=True)
    app = rig.dialer.answer()
    rig.settle()
    assert app.recv(100) == b"early, and the end"
    assert app.recv(1) == b""
    app.send(b"answer")
    app.close()
    rig.settle()
    assert (caller.status, caller.data, caller.ended) == (200, b"answer", True)
    assert rig.engine.connections == 0


def test_an_app_that_is_not_there_is_a_503(rig: InboundRig) -> None:
    tunnel = rig.tunnel()
    caller = rig.request(tunnel)
    rig.dialer.fail(DialError.REFUSED)
    rig.settle()
    assert (caller.status, caller.ended) == (503, True)
    assert rig.refusals == {"connect_failed": 1}
    assert rig.engine.connections == 0
    assert not tunnel.closed


def test_a_peer_that_resets_takes_the_dial_along(rig: InboundRig) -> None:
    tunnel = rig.tunnel()
    caller = rig.request(tunnel)
    tunnel.session.reset(caller.stream, ErrorCode.CANCEL)
    tunnel.stream_over(caller.stream)
    tunnel.touch()
    rig.settle()
    assert rig.dialer.abandoned == 1
    assert rig.engine.connections == 0


def test_a_lost_tunnel_ends_dials_and_relays(rig: InboundRig) -> None:
    tunnel = rig.tunnel()
    rig.request(tunnel)
    app = rig.dialer.answer()
    rig.settle()
    rig.request(tunnel)
    assert rig.engine.connections == 2
    tunnel.close(TunnelEnd.CUT)
    rig.settle()
    assert rig.dialer.abandoned == 1
    assert is_closed(app)
    assert rig.engine.connections == 0


def test_a_deleted_pod_resets_its_streams(rig: InboundRig) -> None:
    tunnel = rig.tunnel()
    waiting = rig.request(tunnel)
    rig.engine.remove_pod("p")
    rig.settle()
    assert waiting.reset is not None or waiting.lost is not None
    assert rig.dialer.abandoned == 1
    assert rig.engine.connections == 0


def test_a_policy_that_no_longer_allows_it_cuts_the_stream_alone(rig: InboundRig) -> None:
    tunnel = rig.tunnel()
    caller = rig.request(tunnel)
    app = rig.dialer.answer()
    rig.settle()
    rig.change(only("somebody-else"))
    rig.recheck()
    assert caller.reset == ErrorCode.CANCEL
    assert is_closed(app)
    assert not tunnel.closed
    assert rig.refusals == {"policy_changed": 1}


def test_a_port_whose_clients_speak_first_is_dialled_with_patience(rig: InboundRig) -> None:
    tunnel = rig.tunnel()
    caller = rig.request(tunnel)
    app = rig.dialer.answer()
    rig.settle()
    rig.say(caller, tunnel, b"GET", end=True)
    app.close()
    rig.settle()
    rig.request(tunnel)
    assert rig.dialer.patient == [False, True]
    rig.dialer.answer()
    rig.settle()
    assert len(rig.engine.first_words) == 1
    rig.time.now_s += PATIENCE_S
    rig.settle()
    assert len(rig.engine.first_words) == 0


def test_an_app_that_speaks_first_is_never_kept_waiting_again(rig: InboundRig) -> None:
    tunnel = rig.tunnel()
    for _ in range(2):
        caller = rig.request(tunnel)
        app = rig.dialer.answer()
        app.send(b"220 hello")
        rig.settle()
        rig.say(caller, tunnel, b"QUIT", end=True)
        app.close()
        rig.settle()
    assert rig.dialer.patient == [False, False]


def test_a_bug_resets_one_stream(rig: InboundRig) -> None:
    tunnel = rig.tunnel()
    caller = rig.request(tunnel)
    (connection,) = rig.pod.inbound
    connection.on_bug()
    rig.settle()
    assert caller.reset == ErrorCode.CANCEL
    assert not tunnel.closed
    assert rig.engine.connections == 0
