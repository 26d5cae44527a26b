"""Connections that wait for an answer about an address: woken by it, refused, or given up."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from control.model.address import parse_address, parse_endpoint
from tests.support.engine.meshes import entry
from tests.support.engine.meshes import pod as workload
from tests.support.engine.tunnel_memory import FakeTime
from ztunnel.connections.lookups import ANSWER_S, WAITING_MAX, AddressLookups, names_in_use
from ztunnel.connections.pod import Pod
from ztunnel.loop.reactor import Reactor
from ztunnel.loop.served import Served
from ztunnel.mesh.entries import Entry, Op
from ztunnel.mesh.state import State
from ztunnel.refusals import Reason


class Item:
    def __init__(self, bench: Bench, pod: Pod, then: tuple[str, ...] = ()) -> None:
        self.bench = bench
        self.pod = pod
        self.then = then
        self.first: Callable[[], object] | None = None  # what it does before all else
        self.fate: object = None

    def on_known(self) -> None:
        if self.first is not None:
            self.first()
        if self.then:
            names, self.then = self.then, ()
            assert self.bench.subject.wait(self.pod, self, names)
        else:
            self.fate = "known"

    def on_unknown(self, reason: Reason) -> None:
        self.fate = reason

    def on_bug(self) -> None:
        self.fate = "bug"


class Bench:
    def __init__(self) -> None:
        self.time = FakeTime()
        self.bugs: list[Served] = []
        self.reactor = Reactor(self.bugs.append, self.time)
        self.asked: list[tuple[str, list[str], bool]] = []
        self.subject = AddressLookups(self.reactor, lambda *each: self.asked.append(each))
        self.pod = Pod("p", "p", "shop", "p", -1)
        self.other = Pod("q", "q", "shop", "q", -1)

    def wait(self, *names: str, pod: Pod | None = None, then: tuple[str, ...] = ()) -> Item:
        item = Item(self, pod or self.pod, then)
        assert self.subject.wait(item.pod, item, names)
        return item

    def pass_s(self, seconds: float) -> None:
        self.time.now_s += seconds
        self.reactor.turn(0)


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.reactor.close()
    assert not made.bugs
    assert len(made.subject) == 0
    assert not made.subject._by_name
    assert not made.subject._of_pods
    assert not len(made.subject._late)


def test_an_answer_wakes_exactly_those_that_have_all_their_names(bench: Bench) -> None:
    one, both, other = bench.wait("/a"), bench.wait("/a", "/b"), bench.wait("/c")
    bench.subject.told(["/a", "/x"])
    assert (one.fate, both.fate, other.fate) == ("known", None, None)
    bench.subject.told(["/b"])
    assert (both.fate, other.fate) == ("known", None)
    bench.subject.told(["/c"])


def test_one_question_for_each_pod_and_name(bench: Bench) -> None:
    items = [bench.wait("/a"), bench.wait("/a"), bench.wait("/a", pod=bench.other)]
    assert bench.asked == [("p", ["/a"], False), ("q", ["/a"], False)]
    bench.subject.told(["/a"])
    assert {each.fate for each in items} == {"known"}


def test_the_deadline_is_one_for_all_names_of_a_connection(bench: Bench) -> None:
    item = bench.wait("/a", then=("/b",))
    bench.pass_s(ANSWER_S * 0.6)
    bench.subject.told(["/a"])
    assert item.fate is None
    bench.pass_s(ANSWER_S * 0.5)
    assert item.fate is Reason.ADDRESS_TIMEOUT


def test_a_refusal_ends_those_of_that_pod_alone(bench: Bench) -> None:
    mine, others = bench.wait("/a", "/b"), bench.wait("/a", pod=bench.other)
    bench.subject.failed("p", ["/a"], Reason.ADDRESSES_MAX)
    assert (mine.fate, others.fate) == (Reason.ADDRESSES_MAX, None)
    bench.subject.told(["/a"])
    assert others.fate == "known"


def test_a_pod_with_too_many_takes_no_place_of_another(bench: Bench) -> None:
    items = [bench.wait(f"/{number}") for number in range(WAITING_MAX)]
    assert not bench.subject.wait(bench.pod, Item(bench, bench.pod), ["/more"])
    other = bench.wait("/more", pod=bench.other)
    bench.subject.withdraw(items[0])
    bench.wait("/again")
    bench.subject.told_all()
    assert other.fate == "known"
    assert items[0].fate is None


def test_one_that_is_withdrawn_by_the_end_of_another_is_not_woken(bench: Bench) -> None:
    first, second = bench.wait("/a"), bench.wait("/a")
    first.first = lambda: bench.subject.withdraw(second)
    bench.subject.told(["/a"])
    assert second.fate is None


def test_a_bug_ends_the_connection_and_nothing_else(bench: Bench) -> None:
    bad, good = bench.wait("/a"), bench.wait("/a")
    bad.first = lambda: [][0]
    bench.subject.told(["/a"])
    assert (bad.fate, good.fate) == ("bug", "known")
    bench.bugs.clear()


def test_a_peer_is_asked_for_without_anybody_waiting(bench: Bench) -> None:
    state, address = State(), parse_address("10.0.0.7")
    bench.subject.want(state, bench.pod, "", address)
    assert bench.asked == [], "everything comes unasked"
    state.apply([Entry(Op.ON_DEMAND)])
    bench.subject.want(state, bench.pod, "", address)
    assert bench.asked == [("p", ["/10.0.0.7"], True)]
    state.apply([Entry(Op.KNOWN, "/10.0.0.7")])
    bench.subject.want(state, bench.pod, "", address)
    assert len(bench.asked) == 1


def test_names_in_use_are_those_dialled_since_the_last_report(bench: Bench) -> None:
    state = State(node="n1")
    source = workload("p", "10.0.0.1", node="n1", service_account="p")
    state.apply([Entry(Op.ON_DEMAND), entry(source)])
    bench.pod.dials(parse_endpoint("10.0.0.9:80"))
    bench.pod.dials(parse_endpoint("10.0.0.1:80"))  # its own: nobody asks
    assert names_in_use(state, bench.pod) == {"/10.0.0.9"}
    assert names_in_use(state, bench.pod) == set()
    assert names_in_use(state, bench.other) == set()
