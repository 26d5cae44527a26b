"""Turns: order and time of calls, and the price of a bug."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tests.support.engine.tunnel_memory import FakeTime
from ztunnel.loop.reactor import READABLE, WATCH_READ, Reactor
from ztunnel.loop.served import Served
from ztunnel.loop.turns import SLICE_S, STALL_S


class Recorder:
    def __init__(self, sock: socket.socket | None = None, fail: bool = False) -> None:
        self.sock = sock
        self.fail = fail
        self.calls: list[str] = []

    def on_ready(self, events: int) -> None:
        self.calls.append("ready")
        if self.fail:
            raise KeyError("bug")

    def on_again(self) -> None:
        self.calls.append("again")

    def flush(self) -> None:
        self.calls.append("flush")

    def on_bug(self) -> None:
        self.calls.append("bug")


class Rig:
    def __init__(self) -> None:
        self.time = FakeTime()
        self.bugs: list[Served] = []
        self.reactor = Reactor(self.bugs.append, self.time)
        self.sockets: list[socket.socket] = []

    def watched(self, fail: bool = False) -> tuple[Recorder, socket.socket]:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self.sockets += [ours, theirs]
        recorder = Recorder(ours, fail)
        self.reactor.watch(ours.fileno(), recorder, WATCH_READ)
        return recorder, theirs


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    yield made
    for sock in made.sockets:
        sock.close()
    made.reactor.close()


def test_readiness_is_told_once_not_again_and_again(rig: Rig) -> None:
    recorder, peer = rig.watched()
    peer.send(b"x")
    for _ in range(5):
        rig.reactor.turn(0)
    assert recorder.calls == ["ready"]


def test_resumed_handlers_run_in_the_next_turn_and_flushes_last(rig: Rig) -> None:
    recorder, peer = rig.watched()
    rig.reactor.flush_later(recorder)
    rig.reactor.again(recorder)
    peer.send(b"x")
    rig.reactor.turn(0)
    assert recorder.calls == ["ready", "again", "flush"]
    rig.reactor.turn(0)
    assert recorder.calls == ["ready", "again", "flush"]


def test_work_to_do_is_not_slept_over(rig: Rig) -> None:
    recorder, _ = rig.watched()
    rig.reactor.again(recorder)
    rig.reactor.turn(60)  # would take a minute
    assert recorder.calls == ["again"]


def test_a_bug_ends_one_handler_and_the_turn_goes_on(rig: Rig) -> None:
    broken, first = rig.watched(fail=True)
    fine, second = rig.watched()
    first.send(b"x")
    second.send(b"x")
    rig.reactor.turn(0)
    assert broken.calls == ["ready", "bug"]
    assert fine.calls == ["ready"]
    assert rig.bugs == [broken]


def test_a_discarded_socket_is_closed_after_the_turn_and_never_served(rig: Rig) -> None:
    recorder, peer = rig.watched()
    assert recorder.sock is not None
    peer.send(b"x")
    rig.reactor.discard(recorder.sock)
    number = recorder.sock.fileno()
    assert number >= 0
    rig.reactor.turn(0)
    assert recorder.calls == []
    assert recorder.sock.fileno() == -1
    assert rig.reactor._handlers == {}


def test_watching_again_reports_what_is_true_and_handing_over_does_not(rig: Rig) -> None:
    first, peer = rig.watched()
    assert first.sock is not None
    second = Recorder()
    peer.send(b"x")
    rig.reactor.turn(0)
    rig.reactor.hand_over(first.sock.fileno(), second)
    rig.reactor.turn(0)
    assert (first.calls, second.calls) == (["ready"], [])
    rig.reactor.watch(first.sock.fileno(), second, WATCH_READ)
    rig.reactor.turn(0)
    assert (first.calls, second.calls) == (["ready"], ["ready"])


def test_events_carry_what_happened(rig: Rig) -> None:
    seen: list[int] = []

    class Seeing(Recorder):
        def on_ready(self, events: int) -> None:
            seen.append(events)

    ours, theirs = socket.socketpair()
    rig.sockets += [ours, theirs]
    rig.reactor.watch(ours.fileno(), Seeing(), WATCH_READ)
    theirs.send(b"x")
    rig.reactor.turn(0)
    assert seen[0] & READABLE


class Payer(str):
    """A name that has spent CPU time."""

    cpu_s = 0.0
    slowed = 0


PAYERS: dict[str, Payer] = {}


class Paying:
    """A handler of some payer that takes a while."""

    def __init__(self, time: FakeTime, payer: str, served: list[str]) -> None:
        self._time = time
        self.payer = PAYERS.setdefault(payer, Payer(payer))
        self._served = served

    def on_ready(self, events: int) -> None:
        self._served.append(self.payer)
        self._time.now_s += 0.6 * SLICE_S

    def on_bug(self) -> None:
        raise AssertionError


def test_while_two_payers_have_work_each_has_a_slice_of_a_turn() -> None:
    time, served = FakeTime(), list[str]()
    reactor = Reactor(lambda item: pytest.fail(f"a bug in {item}"), time)
    pairs = [socket.socketpair() for _ in range(40)]
    for number, (ours, theirs) in enumerate(pairs):
        payer = "quiet" if number == len(pairs) - 1 else "busy"
        reactor.watch(ours.fileno(), Paying(time, payer, served), WATCH_READ)
        theirs.send(b"x")
    for payer in ("busy", "quiet"):
        reactor.meet(payer)
    assert reactor.crowded
    reactor.turn(0)
    assert served == ["busy", "busy", "quiet"]  # a slice in order; then who had least
    reactor.discard(pairs[10][0])  # while its event waits
    for _ in range(40):
        reactor.turn(0)
    assert (served.count("busy"), served.count("quiet")) == (38, 1)
    for ours, theirs in pairs:
        ours.close()
        theirs.close()
    reactor.close()


def test_one_payer_alone_has_the_whole_turn() -> None:
    time, served = FakeTime(), list[str]()
    reactor = Reactor(lambda item: pytest.fail(f"a bug in {item}"), time)
    pairs = [socket.socketpair() for _ in range(40)]
    for ours, theirs in pairs:
        reactor.watch(ours.fileno(), Paying(time, "alone", served), WATCH_READ)
        theirs.send(b"x")
    reactor.meet("alone")
    reactor.turn(0)
    assert len(served) == 40
    for ours, theirs in pairs:
        ours.close()
        theirs.close()
    reactor.close()


def test_a_long_turn_of_several_payers_makes_the_next_ones_fair() -> None:
    """Nobody says that a listener has work; that the turn was long does."""
    time, served = FakeTime(), list[str]()
    reactor = Reactor(lambda item: pytest.fail(f"a bug in {item}"), time)
    pairs = [socket.socketpair() for _ in range(20)]
    for number, (ours, theirs) in enumerate(pairs):
        reactor.watch(ours.fileno(), Paying(time, f"payer {number % 2}", served), WATCH_READ)
        theirs.send(b"x")
    reactor.turn(0)
    assert (len(served), reactor.crowded) == (20, False)
    for _, theirs in pairs:
        theirs.send(b"x")
    reactor.turn(0)
    assert reactor.crowded
    assert len(served) < 30
    for ours, theirs in pairs:
        ours.close()
        theirs.close()
    reactor.close()


def test_flushing_is_at_the_cost_of_those_whose_output_it_is() -> None:
    time, served = FakeTime(), list[str]()
    reactor = Reactor(lambda item: pytest.fail(f"a bug in {item}"), time, cpu_s=time)
    ours, theirs = socket.socketpair()
    reactor.watch(ours.fileno(), Paying(time, "reads", served), WATCH_READ)

    class Writing(Paying):
        def flush(self) -> None:
            time.now_s += 100 * SLICE_S  # a stall: its payer rests

    theirs.send(b"x")
    for payer in ("reads", "writes"):
        reactor.meet(payer)
    reactor.flush_later(Writing(time, "writes", served))
    reactor.turn(0)
    assert reactor._backlog.anyone_stalled
    assert served == ["reads"]
    ours.close()
    theirs.close()
    reactor.close()


def test_a_long_turn_of_one_payer_changes_nothing_for_it() -> None:
    time, served = FakeTime(), list[str]()
    reactor = Reactor(lambda item: pytest.fail(f"a bug in {item}"), time)
    pairs = [socket.socketpair() for _ in range(40)]
    for ours, _ in pairs:
        reactor.watch(ours.fileno(), Paying(time, "alone", served), WATCH_READ)
    for turn in range(1, 40):
        for _, theirs in pairs:
            theirs.send(b"x")
        reactor.turn(0)
        assert len(served) == turn * len(pairs), "all that was ready, in every turn"
        assert not reactor.crowded
    for ours, theirs in pairs:
        ours.close()
        theirs.close()
    reactor.close()


def test_who_has_to_wait_for_a_stall_waits_though_the_others_are_quiet_by_then() -> None:
    time, served = FakeTime(), list[str]()
    reactor = Reactor(lambda item: pytest.fail(f"a bug in {item}"), time, cpu_s=time)

    class Stalling(Paying):
        def on_ready(self, events: int) -> None:
            super().on_ready(events)
            time.now_s += 2 * STALL_S

    pairs = [socket.socketpair() for _ in range(2)]
    for ours, theirs in pairs:
        reactor.watch(ours.fileno(), Stalling(time, "staller", served), WATCH_READ)
        theirs.send(b"x")
    for payer in ("staller", "other"):
        reactor.meet(payer)
    reactor.turn(0)
    assert len(served) == 1
    reactor._crowded_until_s = reactor._crowded_until_turn = 0
    assert not reactor.crowded
    reactor.turn(0)
    assert len(served) == 1
    time.now_s += 3 * STALL_S
    reactor.turn(0)
    assert len(served) == 2
    for ours, theirs in pairs:
        ours.close()
        theirs.close()
    reactor.close()
