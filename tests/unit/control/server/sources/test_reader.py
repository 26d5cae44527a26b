"""Typed look-ups: right values, absent ones, and errors that name path and line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.server.sources.problem import Invalid, UnknownField
from control.server.sources.reader import Reader
from control.server.sources.yaml_text import Fields, read_documents

TEXT = """\
text: web
flag: true
number: 7
port: 8080
nothing: null
child:
  inner: x
list: [a, b]
mappings:
- name: one
- name: two
labels: {app: web}
"""


def reader(text: str = TEXT) -> Reader:
    (document,) = read_documents(text.encode())
    assert isinstance(document.value, Fields)
    return Reader(document.value)


def why(call: object) -> tuple[str, int]:
    with pytest.raises(Invalid) as caught:
        call()  # type: ignore[operator]  # a bound look-up
    return str(caught.value), caught.value.line


def test_values_of_their_kind() -> None:
    found = reader()
    assert (found.text("text"), found.flag("flag"), found.number("number"), found.port("port")) == (
        "web",
        True,
        7,
        8080,
    )
    child = found.child("child")
    assert child is not None
    assert (child.path, child.text("inner")) == ("child", "x")
    assert found.texts("list") == [("a", 8), ("b", 8)]
    assert [each.text("name") for each in found.children("mappings")] == ["one", "two"]
    assert found.labels("labels") == {"app": "web"}


@pytest.mark.parametrize("key", ["absent", "nothing"])
def test_a_null_reads_as_an_absent_field(key: str) -> None:
    found = reader()
    assert key not in found
    assert (found.text(key, "default"), found.flag(key, True), found.number(key)) == (
        "default",
        True,
        None,
    )
    assert found.child(key) is None
    assert found.part(key).text("x") == ""
    assert found.children(key) == found.texts(key) == []
    assert found.labels(key) == {}


def test_errors_name_the_path_the_line_and_what_stands_there() -> None:
    found = reader()
    assert why(lambda: found.text("number")) == ("number: must be a string, not the number 7", 3)
    assert why(lambda: found.number("flag")) == (
        "flag: must be a whole number, not the boolean true",
        2,
    )
    assert why(lambda: found.flag("text"))[0] == "text: must be true or false, not a string"
    assert why(lambda: found.child("list"))[0] == "list: must be a mapping, not a list"
    assert why(lambda: found.texts("child"))[0] == "child: must be a list, not a mapping"
    assert why(lambda: found.children("list")) == (
        "list[0]: must be a mapping, not a string",
        8,
    )
    assert why(lambda: found.texts("mappings"))[0] == (
        "mappings[0]: must be a string, not a mapping"
    )
    inner = found.part("child")
    assert why(lambda: inner.number("inner"))[0].startswith("child.inner: must be a whole number")
    assert why(lambda: reader("port: 65536").port("port"))[0] == "port: port 65536 is out of range"


def test_only_known_fields() -> None:
    found = reader("a: 1\nb: 2\n")
    found.only("a", "b", "c")
    with pytest.raises(UnknownField, match="unknown field b") as caught:
        found.only("a")
    assert caught.value.line == 2


VALUES = st.sampled_from(["x", "1", "true", "null", "1.5", "[a]", "{a: b}", "[]", "{}", '"1"'])


@given(VALUES)
def test_any_value_is_one_kind_or_an_error(value: str) -> None:
    found = reader(f"key: {value}\n")
    for look in (found.text, found.flag, found.number, found.port, found.child):
        try:
            look("key")
        except Invalid:
            pass
