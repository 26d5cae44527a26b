"""Problems in manifests: one line each, sorted by place, with a stable word."""

from __future__ import annotations

from control.kit.errors import ConfigError
from control.server.sources.problem import TEXT_CHARS_MAX, Invalid, Problem


def test_a_problem_is_one_line_with_its_place_and_word() -> None:
    found = Problem("a.yaml", 7, "Service shop/web", "unknown_field", "there is no field portz")
    assert str(found) == "a.yaml:7: Service shop/web: there is no field portz (unknown_field)"
    assert str(Problem("a.yaml", 1, "", "yaml", "not YAML")) == "a.yaml:1: not YAML (yaml)"


def test_problems_are_in_order_of_their_places() -> None:
    places = [("b", 1), ("a", 10), ("a", 2)]
    found = sorted(Problem(file, line, "", "r", "m") for file, line in places)
    assert [(each.file, each.line) for each in found] == [("a", 2), ("a", 10), ("b", 1)]


def test_each_kind_of_problem_has_a_word_of_its_own_and_keeps_its_line() -> None:
    kinds = [Invalid, *Invalid.__subclasses__()]
    assert len({kind.reason for kind in kinds}) == len(kinds)
    assert all(issubclass(kind, ConfigError) for kind in kinds)
    assert [kind("message", 7).line for kind in kinds] == [7] * len(kinds)


def test_what_a_manifest_says_is_one_line_of_a_length_and_commands_no_terminal() -> None:
    hostile = "a\nb\x1b[2J\u202e\udcff"
    line = str(Problem(hostile, 1, f"Pod {hostile}", "invalid", hostile + "x" * 3_000_000))
    assert line.isprintable()
    assert "a\\nb\\x1b[2J" in line
    assert len(line) < 2 * TEXT_CHARS_MAX
    assert "é…" in str(Problem("f", 1, "", "invalid", "é…"))
