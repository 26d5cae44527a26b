"""Names of Kubernetes, whole and in part."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.server.compile.names import EXACT, PREFIX, SUFFIX, is_label, is_name, literal

LABELS = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,20}[a-z0-9])?", fullmatch=True)
NAMES = st.lists(LABELS, min_size=1, max_size=3).map(".".join)


@given(LABELS, st.data())
def test_every_part_of_a_label_can_be_one(label: str, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(label)))
    assert is_label(label, EXACT)
    assert is_label(label[:cut], PREFIX)
    assert is_label(label[cut:], SUFFIX)


@given(NAMES, st.data())
def test_every_part_of_a_name_can_be_one(name: str, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(name)))
    assert is_name(name, EXACT)
    assert is_name(name[:cut], PREFIX)
    assert is_name(name[cut:], SUFFIX)


@pytest.mark.parametrize("text", ["Shop", "a b", "a*b", "a_b", "-a", "a" * 64, "ä", "a/b", "a.b"])
def test_these_are_no_labels_and_no_part_makes_them_one(text: str) -> None:
    assert not is_label(text, EXACT)
    assert not (is_label(text, PREFIX) and is_label(text, SUFFIX))


def test_where_an_end_or_a_beginning_may_be_what_a_whole_may_not() -> None:
    assert [is_label("a-", each) for each in (EXACT, PREFIX, SUFFIX)] == [False, True, False]
    assert [is_label("-a", each) for each in (EXACT, PREFIX, SUFFIX)] == [False, False, True]
    assert [is_label("", each) for each in (EXACT, PREFIX, SUFFIX)] == [False, True, True]
    assert [is_name("a.", each) for each in (EXACT, PREFIX, SUFFIX)] == [False, True, False]
    assert not any(is_name("a..b", each) for each in (EXACT, PREFIX, SUFFIX))
    assert is_label("a" * 63, PREFIX)
    assert not is_label("a" * 62 + "-", PREFIX), "nothing may follow"
    assert [literal("ns")("n", each) for each in (EXACT, PREFIX, SUFFIX)] == [False, True, False]
