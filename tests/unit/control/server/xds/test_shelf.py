"""A shelf and its log: what changed since, for whom the past is kept, and when it is given up."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from control.server.xds.resource import make_entry
from control.server.xds.shelf import LOG_MIN, TRIM_FROM, Shelf, ShelfPlace

STATES = st.dictionaries(st.sampled_from("abcd"), st.sampled_from(["1", "2"]))


class Bench:
    def __init__(self, *readers: ShelfPlace) -> None:
        self.shelf = Shelf("t")
        for each in readers:
            self.shelf.places.add(each)
        self.revision = 0

    def become(self, state: dict[str, str]) -> None:
        self.revision += 1
        entries = self.shelf.entries
        for name in list(entries.keys() - state.keys()):
            self.shelf.remove(name, self.revision)
        for name, version in state.items():
            entry = make_entry("t", name, version.encode())
            if name not in entries or entries[name].version != entry.version:
                self.shelf.put(entry, self.revision)

    def change(self, times: int) -> None:
        for number in range(times):
            self.become({"a": f"x{number}"})


def applied(held: dict[str, str], shelf: Shelf, at: int) -> dict[str, str]:
    found = shelf.difference(at)
    held = {name: version for name, version in held.items() if name not in found.removed}
    return held | {each.name: each.version for part in found.parts for each in part}


@given(st.lists(STATES, min_size=1, max_size=8))
def test_a_difference_leads_from_any_revision_to_the_present(states: list[dict[str, str]]) -> None:
    reader = ShelfPlace(at=1)
    bench = Bench(reader)
    past = [(0, dict[str, str]())]
    for state in states:
        bench.become(state)
        past.append((bench.revision, dict(bench.shelf.versions())))
    for at, held in past:
        found = bench.shelf.difference(at)
        assert applied(held, bench.shelf, at) == bench.shelf.versions()
        told = [each for part in found.parts for each in part]
        assert all(held.get(each.name) != each.version for each in told), "nothing twice"
        assert set(found.removed) <= held.keys()
        assert len(found) <= bench.shelf.count_since(at)


def test_one_difference_serves_all_at_the_same_revision() -> None:
    reader = ShelfPlace(at=1)
    bench = Bench(reader)
    bench.become({"a": "1"})
    bench.become({"a": "2"})
    assert bench.shelf.difference(1) is bench.shelf.difference(1)
    assert bench.shelf.difference(1) is not bench.shelf.difference(0)
    before = bench.shelf.difference(1)
    bench.become({"a": "3"})
    assert bench.shelf.difference(1) is not before


def test_the_past_is_kept_for_the_client_that_is_furthest_behind() -> None:
    near, far = ShelfPlace(at=TRIM_FROM), ShelfPlace(at=1)
    bench = Bench(near, far)
    bench.change(2 * TRIM_FROM)
    assert bench.shelf.difference(1).parts
    assert not bench.shelf.has_lost(1)
    assert bench.shelf.start <= 1
    far.at = near.at
    bench.change(1)
    assert bench.shelf.start == near.at
    assert not bench.shelf.has_lost(near.at)
    assert bench.shelf.has_lost(1)
    assert not bench.shelf.has_lost(0), "who holds nothing needs no past"


def test_nothing_is_kept_while_nobody_reads() -> None:
    bench = Bench()
    bench.change(10)
    assert bench.shelf.start == bench.shelf.latest == 10
    reader = ShelfPlace(at=10)
    bench.shelf.places.add(reader)
    bench.become({"b": "1"})
    assert not bench.shelf.has_lost(10)
    assert applied({"a": ""}, bench.shelf, 10) == bench.shelf.versions()


def test_a_client_that_takes_nothing_is_given_up() -> None:
    reader = ShelfPlace(at=1)
    bench = Bench(reader)
    bench.change(LOG_MIN + 100)
    assert bench.shelf.has_lost(1)
    assert not bench.shelf.has_lost(bench.revision - LOG_MIN)


def test_the_last_change_is_there_however_large() -> None:
    reader = ShelfPlace(at=1)
    bench = Bench(reader)
    bench.become({"a": "1"})
    for number in range(LOG_MIN + 10):
        bench.shelf.put(make_entry("t", "b", str(number).encode()), 2)
    assert not bench.shelf.has_lost(1)
    assert applied(dict(bench.shelf.versions(), b="0"), bench.shelf, 1) == bench.shelf.versions()
