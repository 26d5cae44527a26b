"""docs/clocks.md names every place that asks the wall clock, and nothing goes around `Clock`."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "clocks.md").read_text()
PACKAGES = ("agent", "bpf", "control", "ztunnel")
# `time.monotonic` and its kin are free; these follow a clock that somebody sets.
SET_BY_SOMEBODY = {
    *("time.time", "time.time_ns", "time.localtime", "time.gmtime", "time.ctime", "time.strftime"),
    *("time.CLOCK_REALTIME", "datetime.now", "datetime.utcnow", "datetime.today", "date.today"),
}
THE_CLOCK = "control/kit/clock.py"


def sources() -> Iterator[tuple[str, ast.Module]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            if "_compiled" not in path.parts:  # copies of the sources
                yield str(path.relative_to(ROOT)), ast.parse(path.read_text())


def asks(tree: ast.Module) -> int:
    """Calls of `clock.now()`."""
    return sum(
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "now"
        and not node.args
        and ast.unparse(node.func.value).lower().endswith(("clock", "clock()"))
        for node in ast.walk(tree)
    )


def told() -> dict[str, int]:
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in PAGE.splitlines()
        if line.startswith("| `")
    ]
    return {row[0].strip("`"): int(row[1]) for row in rows}


def test_the_page_names_every_place_that_asks_the_wall_clock() -> None:
    found = Counter({path: asks(tree) for path, tree in sources()})
    assert {path: count for path, count in found.items() if count} == told()


def test_nothing_asks_the_wall_clock_but_by_a_clock() -> None:
    around = [
        f"{path}:{node.lineno}"
        for path, tree in sources()
        if path != THE_CLOCK
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node) in SET_BY_SOMEBODY
    ]
    assert around == []
