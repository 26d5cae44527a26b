"""Commands are values: two of the same kind with the same fields are the same command."""

from __future__ import annotations

from typing import get_args

from agent.direct.commands import Command, SetState


def test_commands_are_frozen_values() -> None:
    assert SetState(1, 2) == SetState(1, 2)
    assert {SetState(1, 2), SetState(1, 2)} == {SetState(1, 2)}
    for kind in get_args(Command):
        assert kind.__dataclass_params__.frozen, kind
