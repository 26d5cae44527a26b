from __future__ import annotations

import pytest

from agent.cli.chart.errors import ChartError
from agent.cli.chart.lexer import Copied, TemplateAction, pieces


def texts(text: str) -> list[str]:
    return [each.text for each in pieces(text, "t") if isinstance(each, Copied)]


def kinds(text: str) -> list[tuple[str, str]]:
    (action,) = pieces(text, "t")
    assert isinstance(action, TemplateAction)
    return [(word.kind, word.text) for word in action.words]


def test_a_dash_takes_the_white_space_beside_it() -> None:
    assert texts("a \n {{- .x }} b") == ["a", " b"]
    assert texts("a {{ .x -}} \n b") == ["a ", "b"]


def test_a_comment_leaves_nothing_but_what_it_trims() -> None:
    assert pieces("a\n{{- /* }} is no end here */ -}}\nb", "t") == [Copied("a"), Copied("b")]


def test_words_of_an_action() -> None:
    assert kinds('{{ $a := f .b.c "x}}y" 12 | g }}') == [
        ("variable", "$a"),
        ("sign", ":="),
        ("name", "f"),
        ("field", ".b"),
        ("field", ".c"),
        ("text", "x}}y"),
        ("number", "12"),
        ("sign", "|"),
        ("name", "g"),
    ]


def test_the_line_of_an_action_is_known() -> None:
    action = pieces("a\nb\n{{ .x }}", "t")[-1]
    assert isinstance(action, TemplateAction)
    assert action.line == 3


@pytest.mark.parametrize("text", ["{{ .x", "a {{ b {{", "{{ a & b }}"])
def test_what_is_no_template_is_refused(text: str) -> None:
    with pytest.raises(ChartError, match=r"^t"):
        pieces(text, "t")
