"""Sums of what is held: equal for the same, whatever its order, and for nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.kit.errors import WireError
from control.wire import sums

HELD = st.dictionaries(st.text(max_size=3), st.text("0123,ab", max_size=3), max_size=8)


@given(HELD, HELD)
def test_sums_are_the_same_for_the_same_and_differ_where_it_does(
    one: dict[str, str], other: dict[str, str]
) -> None:
    assert sums.sums_of(one) == sums.sums_of(dict(reversed(one.items())))
    first, second = sums.sums_of(one), sums.sums_of(other)
    differing = {number for number in range(sums.BUCKETS) if first[number] != second[number]}
    wanted = {sums.bucket_of(name) for name, _ in set(one.items()) ^ set(other.items())}
    assert differing == wanted


@given(st.lists(st.tuples(st.text(max_size=3), st.text(max_size=3)), max_size=3))
def test_no_entries_can_be_read_as_others(entries: list[tuple[str, str]]) -> None:
    """Also those with our own marks in them."""
    joined = [("".join(f"{len(b)},{len(a)},{b}{a}" for a, b in sorted(entries)), "")]
    assert (sums.sum_of(entries) == sums.sum_of(joined)) is (entries == joined)


@given(HELD)
def test_sums_travel_as_text(held: dict[str, str]) -> None:
    found = sums.sums_of(held)
    assert sums.sums_from_text(sums.sums_to_text(found)) == found


@given(st.frozensets(st.integers(0, sums.BUCKETS - 1)), HELD)
def test_a_question_asks_for_its_buckets(buckets: frozenset[int], held: dict[str, str]) -> None:
    assert sums.question_from_text(sums.question_to_text(buckets)) == buckets
    wanted = {name: each for name, each in held.items() if sums.bucket_of(name) in buckets}
    assert sums.entries_in(held, buckets) == wanted
    assert sums.entries_in(held, sums.ALL_BUCKETS) == held


@given(st.text(max_size=12))
def test_other_text_is_no_sums_and_asks_nothing(text: str) -> None:
    with pytest.raises(WireError):
        sums.sums_from_text(text)
    if not text.startswith(sums.ASKS):
        assert sums.question_from_text(text) is None
    with pytest.raises(WireError):
        sums.question_from_text(sums.ASKS + text)


def test_names_of_a_mesh_are_spread_evenly() -> None:
    counts = [0] * sums.BUCKETS
    for number in range(50_000):
        counts[sums.bucket_of(f"Kubernetes//Pod/ns-{number // 100}/app-{number:06d}")] += 1
    assert max(counts) < 3 * min(counts)
