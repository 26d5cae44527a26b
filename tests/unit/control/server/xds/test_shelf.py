"""A shelf and its log: what changed since, for whom the past is kept, and when it is given up."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from control.kit.slices import PORTION, done
from control.server.xds.difference import RESPONSE_BYTES_MAX
from control.server.xds.resource import make_entry
from control.server.xds.shelf import (
    FOREIGN,
    LOG_MIN,
    PREPARED_MIN,
    TRIM_FROM,
    HeldVersions,
    Shelf,
    ShelfPlace,
)

STATES = st.dictionaries(st.sampled_from("abcd"), st.sampled_from(["1", "2"]))


class Bench:
    def __init__(self, *readers: ShelfPlace) -> None:
        self.shelf = Shelf("t")
        for each in readers:
            self.shelf.places.add(each)
        self.revision = 0
        self.steps = 0  # when the last change ended

    def become(self, state: dict[str, str]) -> None:
        self.revision += 1
        entries = self.shelf.entries
        for name in list(entries.keys() - state.keys()):
            self.shelf.remove(name, self.revision)
        for name, version in state.items():
            entry = make_entry("t", name, version.encode())
            if name not in entries or entries[name].version != entry.version:
                self.shelf.put(entry, self.revision)
        self.steps = len(list(self.shelf.settle()))

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


def many(version: str) -> dict[str, str]:
    return {f"n{number}": version for number in range(PREPARED_MIN)}


def test_a_large_change_is_worked_out_in_steps_before_it_is_told() -> None:
    reader = ShelfPlace(at=1)
    bench = Bench(reader)
    bench.become(many("1"))
    bench.become(many("2"))
    assert bench.steps >= 3 * PREPARED_MIN // PORTION
    found = bench.shelf._differences[1, RESPONSE_BYTES_MAX]
    assert bench.shelf.difference(1) is found
    assert len(found) == PREPARED_MIN


def test_a_past_that_nobody_needs_any_more_goes_in_steps() -> None:
    reader = ShelfPlace(at=1)
    bench = Bench(reader)
    bench.become(many("1"))
    bench.become(many("2"))
    reader.at = bench.revision
    bench.become({**many("2"), "a": "1"})
    assert bench.steps >= PREPARED_MIN // PORTION
    assert bench.shelf.start == 2
    assert len(bench.shelf._log) == 1
    bench.become(many("3"))
    bench.shelf.places.discard(reader)
    bench.become(many("4"))
    assert (bench.shelf.start, len(bench.shelf._log)) == (5, 0)


@given(STATES, STATES, st.booleans())
def test_a_list_that_was_placed_in_steps_is_placed_as_in_one(
    now: dict[str, str], held: dict[str, str], changes: bool
) -> None:
    bench, fresh = Bench(ShelfPlace(at=1)), Bench()
    bench.become(now)
    fresh.become(now)
    versions = {name: make_entry("t", name, text.encode()).version for name, text in held.items()}
    held_versions = HeldVersions(versions)
    steps = bench.shelf.placing(held_versions)
    next(steps, None)
    if changes:
        bench.become({**now, "new": "1"})
        fresh.become({**now, "new": "1"})
    done(steps)  # type: ignore[arg-type]  # a generator
    _, odd = bench.shelf.place_of(held_versions)
    _, expected = fresh.shelf.place_of(dict(versions))
    assert odd == expected
    assert bench.shelf.place_of(held_versions)[1] is odd, "once for all"


def test_a_long_list_is_placed_in_steps() -> None:
    bench = Bench()
    bench.become(many("1"))
    foreign = HeldVersions({**bench.shelf.versions(), "foreign": "?"})
    assert len(list(bench.shelf.placing(foreign))) >= 2 * PREPARED_MIN // PORTION
    assert list(bench.shelf.placing(foreign)) == [], "it is known"
    assert bench.shelf.place_of(foreign)[1] == {"foreign": FOREIGN}
