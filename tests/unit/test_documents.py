"""The long documents keep their form: short decisions, an architecture that is read whole."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LABELS = ["Context", "Choice", "Price", "Proof"]
DECISION_WORDS_MAX = 150
ARCHITECTURE_BYTES_MAX = 12_000  # a quarter of an hour; more is not read

TITLE = re.compile(r"(\d+)\. .*[^.] \(\d{4}-\d\d-\d\d\)")
LABEL = re.compile(r"^- \*\*(\w+)\.\*\* ", re.MULTILINE)


def _decisions() -> list[tuple[str, str]]:
    """Title and body of each decision."""
    _, *entries = re.split(r"^## ", (ROOT / "DECISIONS.md").read_text(), flags=re.MULTILINE)
    return [(title, body) for title, _, body in (entry.partition("\n") for entry in entries)]


def test_decisions_are_numbered_without_a_gap_and_dated() -> None:
    numbers = []
    for title, _ in _decisions():
        found = TITLE.fullmatch(title)
        assert found, title
        numbers.append(int(found[1]))
    assert numbers == list(range(1, len(numbers) + 1))


def test_a_decision_has_its_four_lines_and_is_short() -> None:
    for title, body in _decisions():
        assert LABEL.findall(body) == LABELS, title
        assert len(body.split()) <= DECISION_WORDS_MAX + len(LABELS), title  # and the bullets


def test_the_architecture_can_be_read_whole() -> None:
    assert len((ROOT / "ARCHITECTURE.md").read_bytes()) <= ARCHITECTURE_BYTES_MAX


NAMED_TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def test_the_tests_that_security_names_exist() -> None:
    """The table of attacks says no more than is tried."""
    text = (ROOT / "SECURITY.md").read_text()
    named = NAMED_TEST.findall(text)
    assert len(named) > 30
    for file, test in named:
        assert f"def {test}(" in (ROOT / file).read_text(), f"{file}::{test}"
    rows = [line for line in text.splitlines() if "`tests/" in line]
    assert all(NAMED_TEST.search(row) for row in rows)
