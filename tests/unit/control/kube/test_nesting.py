"""JSON of any depth is read, and what is too deep counts as null."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.kube.errors import error_of, error_of_event
from control.kube.nesting import DEPTH_MAX, decoded, shallow

LEVELS = 9_990  # an API server takes 10,000
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=20,
)


def deep(opening: bytes = b'{"a":', closing: bytes = b"}") -> bytes:
    return opening * LEVELS + b"1" + closing * LEVELS


def cut(value: Any, left: int) -> Any:
    if not isinstance(value, list | dict):
        return value
    if left == 0:
        return None
    if isinstance(value, list):
        return [cut(each, left - 1) for each in value]
    return {name: cut(each, left - 1) for name, each in value.items()}


@given(JSON, st.integers(0, 4), st.booleans())
def test_the_upper_levels_stay_as_they_are(value: Any, depth: int, is_ascii: bool) -> None:
    text = json.dumps(value, ensure_ascii=is_ascii).encode(errors="surrogatepass")
    assert json.loads(shallow(text, depth)) == cut(value, depth)


@given(st.binary())
def test_any_bytes_give_some(data: bytes) -> None:
    shallow(data)


@pytest.mark.parametrize("value", [deep(), deep(b"[", b"]")])
def test_what_comes_beside_something_deep_is_read(value: bytes) -> None:
    data = b'{"before":[1],"deep":' + value + b',"after":{"b":"}]\\""}}'
    with pytest.raises(RecursionError):
        msgspec.json.decode(data)
    found = decoded(msgspec.json.decode, data)
    assert (found["before"], found["after"]) == ([1], {"b": '}]"'})
    assert str(found["deep"]).count("{" if b"{" in value else "[") == DEPTH_MAX - 1


def test_what_a_decoder_can_read_is_not_changed() -> None:
    data = b"[" * 100 + b"]" * 100
    assert decoded(bytes, data) == data


def test_a_deep_answer_of_an_api_server_is_an_error_like_another() -> None:
    body = b'{"code":404,"reason":"NotFound","details":{"group":' + deep() + b"}}"
    assert error_of(404, {}, body).kind == "NotFound"
    assert error_of_event(body).code == 404
