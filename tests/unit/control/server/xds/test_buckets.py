"""Sums of a shelf: kept up as from nothing, at the cost of what changed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from control.wire.sums import ALL_BUCKETS, NO_ENTRIES, bucket_of, sums_of
from tests.unit.control.server.xds.test_shelf import STATES, Bench


@given(st.lists(STATES, min_size=1, max_size=8), st.booleans())
def test_sums_are_kept_up_as_from_nothing(states: list[dict[str, str]], early: bool) -> None:
    bench = Bench()
    if early:
        assert set(bench.shelf.buckets.sums()) == {NO_ENTRIES}
    for number, state in enumerate(states):
        bench.become(state)
        if number % 2:
            assert list(bench.shelf.buckets.sums()) == sums_of(bench.shelf.versions())
    buckets = bench.shelf.buckets
    assert list(buckets.sums()) == sums_of(bench.shelf.versions())
    found = {name for each in ALL_BUCKETS for name in buckets.names_in(each)}
    assert found == bench.shelf.entries.keys()


def test_a_change_costs_the_bucket_that_it_is_in() -> None:
    bench = Bench()
    bench.become({"a": "1", "b": "1"})
    before = list(bench.shelf.buckets.sums())
    bench.become({"a": "2", "b": "1"})
    assert len(list(bench.shelf.buckets.steps())) == 1
    assert bench.shelf.buckets.differing(before) == {bucket_of("a")}
