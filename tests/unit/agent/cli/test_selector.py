"""Label selectors: what each form admits, and what is refused."""

from __future__ import annotations

import pytest

from agent.cli.selector import SelectorError, parse

LABELS = {"app": "web", "tier": "", "example.com/team": "a"}


@pytest.mark.parametrize(
    ("text", "admits"),
    [
        ("app=web", True),
        ("app==web", True),
        ("app=db", False),
        ("app!=db", True),
        ("app!=web", False),
        ("absent!=x", True),
        ("app", True),
        ("!app", False),
        ("!absent", True),
        ("absent", False),
        ("tier=", True),
        ("absent=", False),
        ("app=web,example.com/team=a", True),
        ("app=web, example.com/team=b", False),
    ],
)
def test_selectors(text: str, admits: bool) -> None:
    assert all(one.holds(LABELS) for one in parse([text])) is admits


@pytest.mark.parametrize("text", ["", "app in (a,b)", "=x", "app=a b", "a=b,,c=d", "app>1"])
def test_what_cannot_be_understood_is_refused(text: str) -> None:
    with pytest.raises(SelectorError):
        parse([text])
