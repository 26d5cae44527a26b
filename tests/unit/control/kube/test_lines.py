"""Lines of a watch: any split of the bytes gives the same lines."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.kube.errors import TooLargeAnswer
from control.kube.lines import Lines


@given(st.lists(st.binary(max_size=8).filter(lambda each: b"\n" not in each)), st.data())
def test_any_split_gives_the_same_lines(texts: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(each + b"\n" for each in texts)
    lines, found, rest = Lines(), [], whole
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        found += lines.feed(rest[:size])
        rest = rest[size:]
    assert found == [each for each in texts if each.strip()]


def test_a_line_without_an_end_is_no_line() -> None:
    assert Lines().feed(b"half") == []


def test_a_line_that_grows_for_ever_is_refused() -> None:
    lines = Lines(bytes_max=8)
    assert lines.feed(b"12345678") == []
    with pytest.raises(TooLargeAnswer):
        lines.feed(b"9")
