"""A comment that silences a checker names the rule, and the reason."""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("agent", "bpf", "control", "daemonset", "ztunnel")
GENERATED = ("*_pb2.py", "*_pb2_grpc.py")
SILENCED = re.compile(r"#\s*(noqa|type:\s*ignore)")
SAID = re.compile(
    r"#\s*noqa: [A-Z]+[0-9]+(, [A-Z]+[0-9]+)*\s+(#\s*)?(- )?\S+"
    r"|#\s*type: ignore\[[a-z-]+(, [a-z-]+)*\]\s+#\s*\S+"
)


def unsaid(text: str) -> Iterator[int]:
    """Lines with a comment that silences without a reason."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        is_silencing = token.type == tokenize.COMMENT and SILENCED.search(token.string)
        if is_silencing and not SAID.search(token.string):
            yield token.start[0]


@pytest.mark.parametrize(
    ("comment", "is_said"),
    [
        ("noqa", False),
        ("noqa: E501", False),
        ("noqa: E501 it is a link", True),
        ("noqa: E501  # it is a link", True),
        ("type: ignore", False),
        ("type: ignore[misc]", False),
        ("type: ignore[misc] because", False),
        ("type: ignore[misc]  # because", True),
        ("an honest remark", True),
    ],
)
def test_a_reason_is_seen(comment: str, is_said: bool) -> None:
    assert (list(unsaid(f"x = 1  # {comment}\n")) == []) is is_said


def test_nothing_is_silenced_without_a_reason() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
        if "_compiled" not in path.parts and not any(map(path.match, GENERATED))
        for line in unsaid(path.read_text())
    ]
    assert found == []
