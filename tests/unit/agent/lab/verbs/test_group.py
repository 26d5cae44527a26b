"""The verbs of `tulle lab`."""

from __future__ import annotations

from agent.lab.verbs.group import lab


def test_every_verb_is_there() -> None:
    assert sorted(lab.commands) == [
        "apply",
        "delete",
        "down",
        "exec",
        "kill",
        "label",
        "logs",
        "restart",
        "status",
        "stop",
        "up",
    ]
