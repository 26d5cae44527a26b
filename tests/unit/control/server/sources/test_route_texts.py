"""Durations, hostnames, paths and patterns of the Gateway API."""

from __future__ import annotations

import pytest

from control.server.sources.problem import Invalid
from control.server.sources.reader import Reader
from control.server.sources.route_texts import (
    checked_hostname,
    checked_path,
    checked_regex,
    header_name,
    seconds,
)
from control.server.sources.yaml_text import Fields


def reader(text: str) -> Reader:
    fields = Fields(1)
    fields["at"] = text
    return Reader(fields)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("10s", 10.0), ("1m30s", 90.0), ("1h", 3600.0), ("500ms", 0.5), ("0s", 0.0), ("", None),
     ("1h1m1s1ms", 3661.001)],
)  # fmt: skip
def test_durations(text: str, expected: float | None) -> None:
    assert seconds(reader(text), "at") == expected


@pytest.mark.parametrize("text", ["10", "1.5s", "-1s", "123456s", "1d", "1s1s1s1s1s", " 1s"])
def test_no_durations(text: str) -> None:
    with pytest.raises(Invalid, match="is not a duration"):
        seconds(reader(text), "at")


@pytest.mark.parametrize("text", ["/", "/a", "/a/b.c", "/a%20b", "/~a;b=1", "/a/"])
def test_paths(text: str) -> None:
    assert checked_path(reader(text), "at", text) == text


@pytest.mark.parametrize(
    "text",
    ["", "a", "//", "/a//b", "/a/../b", "/a/..", "/./a", "/a%2Fb", "/a%2fb", "/a b", "/a?b", "/a#b",
     "/%zz", "/ä", "/" + "a" * 1024],
)  # fmt: skip
def test_no_paths(text: str) -> None:
    with pytest.raises(Invalid):
        checked_path(reader(text), "at", text)


def test_hostnames() -> None:
    for text in ("a", "a.b", "*.a.b", "a-b.c"):
        assert checked_hostname(text, "at", 1) == text
    for text in ("", "*", "a.*", "A.b", "a..b", "-a", "*a.b", "a" * 254):
        with pytest.raises(Invalid):
            checked_hostname(text, "at", 1)


def test_names_of_headers_have_no_case() -> None:
    assert header_name(reader(""), "at", "X-A") == "x-a"
    for text in ("a b", ":path", "", "ä"):
        with pytest.raises(Invalid):
            header_name(reader(""), "at", text)


def test_patterns_are_those_of_re2() -> None:
    for text in ("a.*", r"/v[0-9]+/(?:a|b)", r"^\d{3}$"):
        assert checked_regex(reader(text), "at", text) == text
    for text in ("(", r"(a)\1", "(?=a)", "(?<!a)b", "(?P=a)", "a" * 1025):
        with pytest.raises(Invalid):
            checked_regex(reader(text), "at", text)
