"""Names that a client asks for: each is answered, kept up, and forgotten when it is given back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.server.callers.refusals import CallRefusal
from control.server.xds import by_name
from control.server.xds.by_name import CHEAP_MAX, ByName
from control.server.xds.names import NAME_COST_BYTES, BadRequest, KeptNames
from control.server.xds.resource import make_entry
from control.server.xds.shelf import Shelf
from control.wire import discovery_pb2 as pb
from control.wire.delta import Word

NAMES = tuple("abcd")


class Bench:
    """A shelf, and what a client made of what it was told."""

    def __init__(self, response_bytes_max: int = 10_000) -> None:
        self.shelf, self.names = Shelf("t"), KeptNames()
        self.subject = ByName(self.shelf, self.names, set(), response_bytes_max)
        self.held: dict[str, str] = {}

    def put(self, **values: str) -> None:
        for name, value in values.items():
            self.shelf.put(make_entry("t", name, value.encode()), 1)
        self.subject.changed(frozenset(values))

    def remove(self, name: str) -> None:
        self.shelf.remove(name, 1)
        self.subject.changed(frozenset({name}))

    def take(self, *, with_removed: bool = True) -> tuple[list[str], list[str]]:
        response = self.subject.take(with_removed=with_removed)("n", Word.MORE)
        message = pb.DeltaDiscoveryResponse.FromString(response.data)
        for each in message.resources:
            self.held[each.name] = each.resource.value.decode()
        for name in message.removed_resources:
            self.held.pop(name, None)
        return [each.name for each in message.resources], list(message.removed_resources)

    def version(self, name: str) -> str:
        return self.shelf.entries[name].version


def test_every_name_is_answered_by_what_there_is_or_as_removed() -> None:
    bench = Bench()
    bench.put(a="1", b="1")
    bench.subject.begin({"a", "x"}, {})
    assert bench.subject.must_answer
    assert bench.take() == (["a"], ["x"])
    assert not bench.subject.has_news
    bench.put(x="1", b="2")
    assert bench.take() == (["x"], []), "b is not asked for"
    bench.subject.subscribe({"a"}, set())
    assert bench.take() == (["a"], []), "asked again, answered again"


def test_one_that_returns_is_told_what_differs() -> None:
    bench = Bench()
    bench.put(a="1", b="1", new="1")
    held = {"a": bench.version("a"), "b": "old", "gone": "v", "given-back": "v"}
    bench.subject.begin({"a", "b", "gone", "new", "never"}, held)
    assert bench.take() == (["b", "new"], ["gone", "never"])


def test_a_removal_can_be_held_back_and_an_answer_cannot() -> None:
    bench = Bench()
    bench.put(a="1")
    bench.subject.begin({"a"}, {})
    bench.take()
    bench.remove("a")
    bench.subject.subscribe({"x"}, set())
    assert bench.take(with_removed=False) == ([], ["x"])
    assert bench.subject.due().removed == ["a"]
    assert bench.take() == ([], ["a"])
    assert not bench.subject.due()


def test_a_name_that_is_given_back_is_forgotten() -> None:
    bench = Bench()
    bench.put(a="1")
    bench.subject.begin({"a"}, {})
    bench.take()
    assert bench.names.size_bytes == NAME_COST_BYTES + 1
    bench.subject.subscribe(set(), {"a", "never"})
    bench.put(a="2")
    bench.remove("a")
    assert not bench.subject.has_news
    assert (bench.names.size_bytes, bench.subject.held_count) == (0, 0)


def test_what_does_not_fit_follows() -> None:
    bench = Bench(response_bytes_max=100)
    bench.put(a="x" * 60, b="x" * 60)
    bench.subject.begin({"a", "b", "x"}, {})
    assert bench.subject.estimate_bytes() == 100
    assert bench.take() == (["a"], [])
    assert bench.take() == (["b"], ["x"])
    assert bench.subject.estimate_bytes() == 0


def test_what_was_never_had_is_lacking_until_it_is_told() -> None:
    bench = Bench()
    bench.subject.begin({"a", "b"}, {})
    bench.take()
    bench.put(a="1")
    assert bench.subject.lacks
    bench.take()
    bench.put(a="2")
    assert not bench.subject.lacks


def test_names_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(by_name, "ASKED_MAX", 3)
    bench = Bench()
    bench.subject.begin({"a", "b", "c"}, {})
    bench.subject.subscribe({"d"}, {"a"})
    with pytest.raises(BadRequest) as caught:
        bench.subject.subscribe({"e"}, set())
    assert caught.value.why is CallRefusal.TOO_MANY_NAMES


def test_many_names_are_worth_a_turn() -> None:
    bench = Bench()
    bench.subject.begin(set(map(str, range(CHEAP_MAX))), {})
    assert not bench.subject.is_cheap
    bench.take()
    assert bench.subject.is_cheap


SETS = st.frozensets(st.sampled_from(NAMES))
STEPS = st.lists(
    st.tuples(st.sampled_from(("subscribe", "give back", "change", "take")), SETS), max_size=20
)


@given(SETS, STEPS)
def test_the_client_ends_with_what_it_asks_for(
    first: frozenset[str], steps: list[tuple[str, frozenset[str]]]
) -> None:
    bench = Bench(response_bytes_max=60)
    bench.subject.begin(set(first), {})
    for number, (kind, names) in enumerate(steps):
        if kind == "subscribe":
            bench.subject.subscribe(set(names), set())
        elif kind == "give back":
            bench.subject.subscribe(set(), set(names))
            for name in names:
                bench.held.pop(name, None)
        elif kind == "take":
            bench.take(with_removed=bool(names))
        else:
            for name in bench.shelf.entries.keys() - names:
                bench.remove(name)
            bench.put(**dict.fromkeys(names, str(number % 3)))
    while bench.subject.due() or bench.subject.must_answer:
        bench.take()
    asked = bench.subject.asked
    assert bench.held.keys() == asked & bench.shelf.entries.keys()
    assert {name: bench.version(name) for name in bench.held} == bench.subject.held()
    assert bench.names.size_bytes == len(asked) * (NAME_COST_BYTES + 1)
