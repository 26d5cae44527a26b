"""YAML as Kubernetes reads it, with lines and with bounds."""

from __future__ import annotations

from itertools import pairwise

import pytest

from control.server.sources import yaml_text
from control.server.sources.problem import Invalid, NotYaml, TooLarge
from control.server.sources.yaml_text import Fields, Items, read_documents


def value(text: str) -> object:
    (document,) = read_documents(text.encode())
    return document.value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("true", True),
        ("FALSE", False),
        ("yes", "yes"),
        ("on", "on"),
        ("~", None),
        ("", None),
        ("'true'", "true"),
        ("!!str 5", "5"),
        ("17", 17),
        ("-1", -1),
        ("0x1f", 31),
        ("0123", "0123"),
        ("1.5", 1.5),
        ("1e5", "1e5"),
        (".inf", ".inf"),
        ("2026-11-22T10:00:00Z", "2026-11-22T10:00:00Z"),
        ("12:30:45", "12:30:45"),
        ("٣", "٣"),
    ],
)
def test_scalars(text: str, expected: object) -> None:
    found = value(f"a: {text}")
    assert isinstance(found, Fields)
    assert found["a"] == expected
    assert type(found["a"]) is type(expected)


def test_every_value_knows_its_line() -> None:
    found = value("a: 1\nb:\n  - x\n  - y: 2\n")
    assert isinstance(found, Fields)
    assert found.lines == {"a": 1, "b": 2}
    assert isinstance(found["b"], Items)
    assert found["b"].lines == [3, 4]


def test_several_documents() -> None:
    documents = read_documents(b"a: 1\n---\n---\n# nothing\n---\nb: 2\n")
    assert [each.value for each in documents] == [{"a": 1}, None, None, {"b": 2}]


def test_json_is_yaml() -> None:
    assert value('{"a": [1, "x", null]}') == {"a": [1, "x", None]}
    assert value('{\n\t"a": {\n\t\t"b":\t"x\\t\\/"\n\t}\n}\n') == {"a": {"b": "x\t/"}}


def test_anchors_and_merges_read_as_their_values() -> None:
    found = value("base: &b {x: 1, y: 2}\na: {<<: *b, y: 3}\nc: [*b]\n")
    assert found == {"base": {"x": 1, "y": 2}, "a": {"x": 1, "y": 3}, "c": [{"x": 1, "y": 2}]}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: 1\na: 2", 2),
        ("a: [", 1),
        ("a: *x", 1),
        ("a: &x [*x]", 1),
        ("? [1]\n: 2", 1),
        ("a: !!python/object:os.system x", 1),
        ("a: !!binary eA==", 1),
        ("a: !own {}", 1),
        ("x: 1\n\tb: 2", 2),
        ("a: {<<: 5}", 1),
    ],
)
def test_what_is_not_for_us(text: str, line: int) -> None:
    with pytest.raises(NotYaml) as caught:
        read_documents(text.encode())
    assert abs(caught.value.line - line) <= 1


def test_not_utf8_names_the_line() -> None:
    with pytest.raises(NotYaml) as caught:
        read_documents(b"a: 1\nb: \xff\n")
    assert caught.value.line == 2


def test_bounds() -> None:
    names = "abcdefghi"
    bomb = "a: &a [x]\n" + "".join(
        f"{new}: &{new} [{', '.join(['*' + old] * 9)}]\n" for old, new in pairwise(names)
    )
    with pytest.raises(TooLarge):
        read_documents(bomb.encode())
    with pytest.raises(TooLarge):
        read_documents(b"[" * 200 + b"]" * 200)
    with pytest.raises(TooLarge):
        read_documents(b"a: &a x\nb: [" + b"*a, " * (yaml_text.ALIASES_MAX + 1) + b"]")
    with pytest.raises(TooLarge):
        read_documents(b"#" * (yaml_text.FILE_BYTES_MAX + 1))
    with pytest.raises(Invalid):
        read_documents(b"[" * 100_000)
