"""Certificates of a worker: kept, waited for, and for how long."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from control.kit.errors import ConfigError
from control.model.identity import SpiffeId
from tests.support.certificates import make_authority
from tests.support.engine.tunnel_memory import FakeTime
from ztunnel.loop.reactor import Reactor, Served
from ztunnel.transport.credentials import WAIT_S, WAITERS_MAX, Credentials
from ztunnel.transport.tls import Material, TlsContext

WEB = SpiffeId("cluster.local", "demo", "web")
AUTHORITY = make_authority()


class Rig:
    def __init__(self) -> None:
        self.time = FakeTime()
        self.bugs: list[Served] = []
        self.reactor = Reactor(self.bugs.append, self.time)
        self.asked: list[tuple[SpiffeId, bool]] = []
        self.credentials = Credentials(self.reactor, lambda *asked: self.asked.append(asked))
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
