from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.cli.chart.errors import ChartError
from agent.cli.chart.tree import Call, Literal, Path, Print, TemplateBlock, parse


def test_a_pipe_is_a_last_argument() -> None:
    (node,) = parse("{{ .a | f 1 }}", "t").nodes
    assert node == Print(Call("f", (Literal(1), Path("", ("a",)))), 1)


def test_a_chain_of_else_if_is_nested() -> None:
    (node,) = parse("{{ if .a }}1{{ else if .b }}2{{ else }}3{{ end }}", "t").nodes
    assert isinstance(node, TemplateBlock)
    (inner,) = node.otherwise
    assert isinstance(inner, TemplateBlock)
    assert inner.value == Path("", ("b",))


@pytest.mark.parametrize(
    "text",
    [
        "{{ if .a }}",
        "{{ end }}",
        "{{ else }}",
        "{{ (f .a }}",
        "{{ .a | .b }}",
        "{{ | f }}",
        "{{ .a ) }}",
        '{{ define "x" }}',
        "{{ if }}{{ end }}",
        "{{ if .a }}" * 60 + "{{ end }}" * 60,
        "{{ " + "(" * 60 + "1" + ")" * 60 + " }}",
    ],
)
def test_what_is_no_template_is_refused_with_its_place(text: str) -> None:
    with pytest.raises(ChartError, match=r"^t"):
        parse(text, "t")


@given(
    st.lists(st.sampled_from(["{{", "}}", "if", "end", ".a", "(", ")", "|", "-", " ", "$x", '"']))
)
def test_any_text_gives_a_tree_or_a_refusal(parts: list[str]) -> None:
    try:
        parse("".join(parts), "t")
    except ChartError:
        pass
