"""JSON that is read without care is read as with it, and nothing that could be taken two ways."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.server.sources.strict import strict_document
from control.server.sources.yaml_text import DEPTH_MAX, read_documents

NUMBERS = st.integers(-(10**16), 10**16)
LEAVES = st.none() | st.booleans() | NUMBERS | st.text("ab \\\"'/~:#-", max_size=4)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text("abc<", max_size=3), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.text("abc", max_size=3), VALUES, max_size=3), st.booleans())
def test_it_is_the_document_that_yaml_is(value: dict[str, object], is_spread: bool) -> None:
    text = json.dumps(value, indent=1 if is_spread else None)
    found = strict_document(text)
    if found is None:
        assert '"<<"' in text
    else:
        (document,) = read_documents(text.encode())
        assert found == document.value


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1, "a": 1}',
        '{"a": {"b": 1, "b": 2}}',
        '{"<<": {"a": 1}}',
        '{"a": "\\ud800"}',
        '{"a": "ä"}',
        '{"a": "\x7f"}',
        '{"a": 1.5}',
        '{"a": 1e3}',
        '{"a": NaN}',
        '{"a": -Infinity}',
        f'{{"a": {10**18}}}',
        f'{{"{"a" * 300}": 1}}',
        "[1]",
        "1",
        '{"a": 1} # more',
        "{a: 1}",
        "",
    ],
)
def test_what_may_be_read_two_ways_is_not_read(text: str) -> None:
    assert strict_document(text) is None


@pytest.mark.parametrize(("open_", "close"), [('{"a":', "}"), ("[", "]")])
@pytest.mark.parametrize("depth", [DEPTH_MAX, DEPTH_MAX + 1, 100_000])
def test_it_goes_as_deep_as_yaml_does(open_: str, close: str, depth: int) -> None:
    text = '{"a":' + open_ * (depth - 1) + "1" + close * (depth - 1) + "}"
    assert (strict_document(text) is not None) == (depth == DEPTH_MAX)
