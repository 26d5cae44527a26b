from __future__ import annotations

import pytest

from control.kit.re2 import LETTERS_MAX, problem_of, quoted


@pytest.mark.parametrize(
    "pattern",
    [
        "a+b*?",
        "[^a-z0-9_-]{1,3}",
        r"\d\w\s\b",
        "(?:a|b)",
        "(?P<n>a)",
        "(?i)a",
        r"^a\.b$",
        "é",
        "(?:a{100}){10}",
    ],
)
def test_good_ones(pattern: str) -> None:
    assert problem_of(pattern) == ""


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        "(",
        "*",
        "(?=a)",
        "(?<!a)b",
        r"(a)\1",
        "(?P<n>a)(?P=n)",
        "a*+",
        "(?>a)",
        "(a)?(?(1)b|c)",
        "a{1001}",
        "[^a]{500}",
        "(?:(?:ab|cd){500}|[a-z]{300})",
        "(?:a{100}){11}",
        "(?:a{100,}){11}",
        "(?#x)",
        "(?x) a",
        r"a\Z",
        "[[:alpha:]]",
        "a" * (LETTERS_MAX + 1),
        "(" * 900 + ")" * 900,
    ],
)
def test_those_that_re2_has_not_or_might_not_have(pattern: str) -> None:
    assert problem_of(pattern)


def test_a_quoted_text_is_itself_alone() -> None:
    assert quoted("/a.b-c(d)") == r"/a\.b-c\(d\)"
