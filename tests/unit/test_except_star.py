"""No `except*` raises: before Python 3.11.4 (Debian 12 has 3.11.2) that comes wrapped in a group.

A caller that catches the exception by its class then misses it, and tests on a newer Python pass.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLACES = ("agent", "bpf", "control", "ztunnel", "tests")


def raising(source: str) -> Iterator[int]:
    """Lines of `raise` inside an `except*`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.TryStar):
            for handler in node.handlers:
                yield from (
                    each.lineno for each in ast.walk(handler) if isinstance(each, ast.Raise)
                )


def test_no_except_star_raises() -> None:
    found = []
    for place in PLACES:
        for path in (ROOT / place).rglob("*.py"):
            text = path.read_text()
            if "except*" in text and path != Path(__file__):
                found += [f"{path.relative_to(ROOT)}:{line}" for line in raising(text)]
    assert found == []


@pytest.mark.parametrize(
    ("body", "lines"), [("pass", []), ("raise", [4]), ("raise group.exceptions[0]", [4])]
)
def test_a_raise_is_found(body: str, lines: list[int]) -> None:
    source = f"try:\n    go()\nexcept* ValueError as group:\n    {body}\n"
    assert list(raising(source)) == lines
