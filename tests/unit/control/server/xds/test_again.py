"""Refused responses: halved until what is refused stands alone, and told as things are by then."""

from __future__ import annotations

import random

import pytest

from control.server.xds.again import Again
from control.server.xds.resource import make_entry
from control.server.xds.response import DeltaResponse, encode
from control.server.xds.shelf import Shelf
from control.wire import discovery_pb2 as pb
from control.wire.delta import Word


class Bench:
    """A client that takes a response only if it has none of `bad`."""

    def __init__(self, names: list[str], bad: set[str], removed: tuple[str, ...] = ()) -> None:
        self.shelf, self.bad = Shelf("t"), bad
        for name in names:
            self.shelf.put(make_entry("t", name, name.encode()), 1)
        self.subject = Again(self.shelf)
        self.taken: list[str] = []
        self.removed: list[str] = []
        self.responses = 0
        pieces = [each.framed for each in self.shelf.entries.values()]
        self.hear(encode("t", "n", Word.MORE, pieces, removed))

    def hear(self, response: DeltaResponse) -> None:
        self.responses += 1
        self.subject.tells(response)
        message = pb.DeltaDiscoveryResponse.FromString(response.data)
        names = [each.name for each in message.resources]
        if self.bad.intersection(names):
            self.subject.refused()
            return
        self.subject.taken()
        self.taken += names
        self.removed += message.removed_resources

    def settle(self) -> None:
        while (response := self.subject.take("n")) is not None:
            self.hear(response)


@pytest.mark.parametrize("seed", range(20))
def test_all_but_the_bad_are_taken_in_few_responses(seed: int) -> None:
    rng = random.Random(seed)
    names = [str(number) for number in range(rng.randint(1, 60))]
    bad = set(rng.sample(names, rng.randint(0, min(3, len(names)))))
    bench = Bench(names, bad, ("gone",))
    bench.settle()
    assert sorted(bench.taken) == sorted(set(names) - bad)
    assert bench.removed == ["gone"]
    assert bench.responses <= 2 + 2 * len(bad) * len(names).bit_length()
    assert not bench.subject


def test_what_changed_meanwhile_is_told_as_it_is() -> None:
    bench = Bench(["a", "b", "bad"], {"bad"}, ("back",))
    bench.shelf.put(make_entry("t", "back", b"b"), 2)
    bench.shelf.remove("a", 2)
    bench.shelf.remove("bad", 2)
    bench.settle()
    assert (bench.taken, bench.removed) == (["b"], [])


def test_what_was_refused_alone_is_not_told_again() -> None:
    bench = Bench(["bad"], {"bad"})
    assert not bench.subject
    assert bench.subject.take("n") is None
