"""Endless payers: they go on from turn to turn for long enough, until they have nothing left."""

from __future__ import annotations

from ztunnel.loop.endless import COUNTED_TURNS, ENDLESS_S, Endless

TURN_S = 0.0001
TURNS = int(ENDLESS_S / TURN_S) + 2


class Bed:
    def __init__(self) -> None:
        self.endless = Endless()
        self.now_s = 100.0
        self.turn()

    def turn(self, *going_on: str, waits: bool = False) -> None:
        """One turn; these had something left, and it is handled unless they wait."""
        for payer in going_on:
            self.endless.goes_on(payer)
        self.now_s += TURN_S
        self.endless.begin_turn(self.now_s)
        for payer in () if waits else going_on:
            self.endless.served(payer)


def test_who_goes_on_for_long_enough_is_endless_and_counted() -> None:
    bed = Bed()
    for _ in range(TURNS // 2):
        bed.turn("flood", "another")
    assert not bed.endless.has("flood")
    for _ in range(TURNS // 2 + COUNTED_TURNS):
        bed.turn("flood", "another")
    assert bed.endless.has("flood")
    assert bed.endless.count == 2


def test_having_nothing_left_once_is_an_end() -> None:
    bed = Bed()
    for number in range(10 * TURNS):
        bed.turn(*(["asks"] if number % 20 else []))
        assert not bed.endless.has("asks")
    for _ in range(COUNTED_TURNS):
        bed.turn()
    assert not bed.endless._going


def test_who_is_left_out_of_turns_has_not_come_to_an_end() -> None:
    bed = Bed()
    bed.turn("flood", waits=True)
    for _ in range(TURNS):
        bed.turn()
    assert bed.endless.has("flood")
