from __future__ import annotations

from typing import Any

import pytest

from agent.cli.chart.errors import ChartError
from agent.cli.chart.run import Runner
from agent.cli.chart.tree import parse


def text(template: str, dot: Any = None) -> str:
    tree = parse(template, "t")
    return Runner([tree], {}).render(tree, dot or {})


def test_fields_variables_and_the_root() -> None:
    dot = {"a": {"b": "x"}, "list": [1, 2]}
    assert text("{{ $v := .a }}{{ $v.b }}{{ range .list }}{{ $.a.b }}{{ . }}{{ end }}", dot) == (
        "xx1x2"
    )


def test_what_a_block_sets_is_its_own() -> None:
    template = "{{ $v := 1 }}{{ if true }}{{ $v := 2 }}{{ $v }}{{ end }}{{ $v }}"
    assert text(template) == "21"


def test_range_over_a_mapping_is_in_order_of_its_keys() -> None:
    template = "{{ range $k, $v := .a }}{{ $k }}={{ $v }},{{ else }}none{{ end }}"
    assert text(template, {"a": {"b": 2, "a": 1}}) == "a=1,b=2,"
    assert text(template, {"a": {}}) == "none"


def test_with_moves_the_dot_only_where_there_is_something() -> None:
    template = "{{ with .a }}{{ .b }}{{ else }}-{{ end }}"
    assert text(template, {"a": {"b": 1}}) == "1"
    assert text(template, {"a": {}}) == "-"


def test_a_defined_template_is_included_with_its_own_dot() -> None:
    template = '{{ define "n" }}<{{ .x }}>{{ end }}{{ include "n" .a | indent 2 }}'
    assert text(template, {"a": {"x": 1}}) == "  <1>"


def test_a_missing_field_is_empty_but_a_field_of_nothing_is_refused() -> None:
    assert text("[{{ .no }}]") == "[]"
    with pytest.raises(ChartError, match="no field 'more'"):
        text("{{ .no.more }}")


@pytest.mark.parametrize(
    "template",
    [
        "{{ unheard .a }}",
        '{{ include "none" . }}',
        "{{ $nobody }}",
        "{{ gt 1 }}",
        '{{ gt 1 "a" }}',
        "{{ index .a 3 }}",
        '{{ define "x" }}{{ include "x" . }}{{ end }}{{ include "x" . }}',
        '{{ "a: [" | fromYaml }}',
    ],
)
def test_a_template_that_fails_is_a_refusal(template: str) -> None:
    with pytest.raises(ChartError):
        text(template, {"a": [1]})
