"""Dice: the numbers of `random`, and the knowledge whether anybody asked for one."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from ztunnel.mesh.dice import Dice


def test_a_decision_without_a_choice_takes_no_roll() -> None:
    assert Dice(1).rolls == 0


@pytest.mark.parametrize(
    "roll",
    [
        lambda dice: dice.random(),
        lambda dice: dice.randrange(10),
        lambda dice: dice.choice("ab"),
        lambda dice: dice.choices("ab", (1, 2)),
        lambda dice: dice.sample(range(9), 2),
        lambda dice: dice.uniform(0.0, 1.0),
    ],
)
def test_every_way_to_roll_counts(roll: Callable[[random.Random], object]) -> None:
    dice = Dice(1)
    found = roll(dice)
    assert dice.rolls > 0
    assert found == roll(random.Random(1)), "the same numbers as without counting"
