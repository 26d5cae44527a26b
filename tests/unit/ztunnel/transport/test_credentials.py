"""Certificates of a worker: kept, waited for, and for how long."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from OpenSSL import SSL

from control.kit.errors import ConfigError
from control.model.identity import SpiffeId
from tests.support.certificates import make_authority
from tests.support.clock import FakeClock
from tests.support.engine.tunnel_memory import FakeTime
from ztunnel.loop.reactor import Reactor
from ztunnel.loop.served import Served
from ztunnel.transport.credentials import TURN_S_MAX, WAIT_S, WAITERS_MAX, Credentials
from ztunnel.transport.tls import (
    Material,
    TlsConnection,
    TlsContext,
    expect_one_of,
    expect_trust_domain,
)

TRUST = "cluster.local"
WEB = SpiffeId(TRUST, "demo", "web")
PODS_IN_A_DAY = 200
AUTHORITY = make_authority()


class Rig:
    def __init__(self) -> None:
        self.time = FakeTime()
        self.bugs: list[Served] = []
        self.reactor = Reactor(self.bugs.append, self.time)
        self.asked: list[tuple[SpiffeId, bool]] = []
        self.clock = FakeClock(datetime.now(UTC))  # noqa: TID251 leaves are of the real time
        self.credentials = Credentials(
            self.reactor, self.clock, lambda *asked: self.asked.append(asked)
        )
        self.got: list[TlsContext | None] = []


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    yield made
    made.reactor.close()
    assert not made.bugs


def test_a_held_certificate_is_given_at_once(rig: Rig) -> None:
    rig.credentials.put(WEB, AUTHORITY.issue(str(WEB)))
    rig.credentials.obtain(WEB, rig.got.append)
    assert len(rig.got) == 1
    assert isinstance(rig.got[0], TlsContext)
    assert rig.asked == []


def test_a_missing_one_is_asked_for_and_waited_for(rig: Rig) -> None:
    rig.credentials.obtain(WEB, rig.got.append)
    assert rig.asked == [(WEB, True)]
    assert rig.got == []
    rig.credentials.put(WEB, AUTHORITY.issue(str(WEB)))
    assert isinstance(rig.got[0], TlsContext)


def test_one_that_has_run_out_is_asked_for_anew(rig: Rig) -> None:
    rig.credentials.put(WEB, AUTHORITY.issue(str(WEB)))
    rig.clock.pass_s(2 * 3600)
    rig.credentials.obtain(WEB, rig.got.append)
    assert rig.asked == [(WEB, True)]
    assert rig.got == []
    rig.clock.pass_s(-2 * 3600)  # the clock was wrong
    rig.credentials.put(WEB, AUTHORITY.issue(str(WEB)))
    assert len(rig.got) == 1
    rig.clock.pass_s(2 * 3600)
    rig.credentials.obtain(WEB, rig.got.append)
    rig.credentials.fail(WEB)
    assert isinstance(rig.got[1], TlsContext), "the peers decide"


def test_waiting_ends_with_a_failure_or_the_deadline(rig: Rig) -> None:
    rig.credentials.obtain(WEB, rig.got.append)
    rig.credentials.fail(WEB)
    assert rig.got == [None]
    rig.credentials.obtain(WEB, rig.got.append)
    rig.time.now_s += WAIT_S
    rig.reactor.turn(0)
    assert rig.got == [None, None]
    rig.credentials.put(WEB, AUTHORITY.issue(str(WEB)))
    assert rig.got == [None, None], "told once"


def test_a_renewed_certificate_is_used_from_then_on(rig: Rig) -> None:
    for _ in range(2):
        rig.credentials.put(WEB, AUTHORITY.issue(str(WEB)))
        rig.credentials.obtain(WEB, rig.got.append)
    assert rig.got[0] is not rig.got[1]


def test_an_unusable_renewal_leaves_the_last_one_in_force(rig: Rig) -> None:
    rig.credentials.put(WEB, AUTHORITY.issue(str(WEB)))
    rig.credentials.obtain(WEB, rig.got.append)
    with pytest.raises(ConfigError):
        rig.credentials.put(WEB, Material(b"", (b"",), b""))
    rig.credentials.obtain(WEB, rig.got.append)
    assert rig.got[0] is rig.got[1]


def test_the_queue_is_bounded(rig: Rig) -> None:
    for _ in range(WAITERS_MAX):
        rig.credentials.obtain(WEB, rig.got.append)
    assert rig.got == []
    rig.credentials.obtain(WEB, rig.got.append)
    assert rig.got == [None]


def test_pods_that_come_and_go_leave_no_contexts_behind(rig: Rig) -> None:
    material = AUTHORITY.issue(str(WEB))  # a context does not look at the name in it
    most = 0
    contexts: list[weakref.ref[SSL.Context]] = []
    for number in range(PODS_IN_A_DAY):
        identity = SpiffeId("cluster.local", "demo", f"job-{number}")
        rig.credentials.put(identity, material)
        rig.credentials.obtain(identity, lambda got: contexts.append(weakref.ref(ssl_of(got))))
        most = max(most, len(rig.credentials))
        rig.credentials.forget(identity)
    assert most == 1
    assert len(rig.credentials) == 0
    assert len(contexts) == PODS_IN_A_DAY
    assert not any(each() for each in contexts), "the keys are gone, not only their names"


def ssl_of(context: TlsContext | None) -> SSL.Context:
    assert context is not None
    return context.ssl


def test_a_handshake_under_way_keeps_its_context_and_no_longer(rig: Rig) -> None:
    rig.credentials.put(WEB, AUTHORITY.issue(str(WEB)))
    rig.credentials.obtain(WEB, rig.got.append)
    held = weakref.ref(ssl_of(rig.got[0]))
    ours = rig.got.pop()
    assert ours is not None
    server = TlsConnection(ours, True, expect_trust_domain(TRUST))
    theirs = TlsContext(AUTHORITY.issue(str(WEB)))
    client = TlsConnection(theirs, False, expect_one_of([WEB]))
    del ours
    client.handshake()
    rig.credentials.forget(WEB)
    for _ in range(2):
        if flight := client.take():
            server.feed(memoryview(flight))
            server.handshake()
        if flight := server.take():
            client.feed(memoryview(flight))
            client.handshake()
    assert (client.peer, server.peer) == (WEB, WEB)
    del server
    assert held() is None


def test_an_identity_that_comes_back_is_asked_for_again(rig: Rig) -> None:
    rig.credentials.put(WEB, AUTHORITY.issue(str(WEB)))
    rig.credentials.forget(WEB)
    rig.credentials.obtain(WEB, rig.got.append)
    assert rig.asked == [(WEB, True)]
    rig.credentials.put(WEB, AUTHORITY.issue(str(WEB)))
    assert isinstance(rig.got[0], TlsContext)


def test_connections_that_wait_are_told_when_the_last_pod_leaves(rig: Rig) -> None:
    rig.credentials.obtain(WEB, rig.got.append)
    rig.credentials.forget(WEB)
    assert rig.got == [None]
    rig.credentials.forget(WEB)  # unknown by now: nothing happens


@pytest.mark.parametrize(
    ("left_s", "turns_before_s"), [(86_400.0, TURN_S_MAX), (3600.0, 360.0), (10.0, 1.0), (-5.0, 0)]
)
def test_a_peers_certificate_vouches_until_its_end_and_a_while_less_for_new_streams(
    rig: Rig, left_s: float, turns_before_s: float
) -> None:
    rig.time.now_s = 1000.0
    rig.reactor.turn(0)
    term = rig.credentials.term(rig.clock.now().timestamp() + left_s)
    assert term.end_s == pytest.approx(1000.0 + max(0.0, left_s))
    assert term.end_s - term.turn_s == pytest.approx(turns_before_s)
