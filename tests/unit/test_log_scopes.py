"""The table of log scopes: those of the code, no more and no fewer."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from control.kit import scopes

ROOT = Path(__file__).parents[2]
LIBRARIES = {"asyncio", "grpc"}


def names(room: str) -> Iterator[str]:
    """Each constant name that a module of this room asks `getLogger` for."""
    for file in (ROOT / room).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("getLogger"):
                yield from (arg.value for arg in node.args if isinstance(arg, ast.Constant))  # type: ignore[misc]


def test_the_table_has_every_logger_of_the_code() -> None:
    found = {name for room in ("agent", "control", "ztunnel", "bpf") for name in names(room)}
    assert set(scopes.SCOPES) - LIBRARIES == found - LIBRARIES
    assert list(scopes.SCOPES) == sorted(scopes.SCOPES)
