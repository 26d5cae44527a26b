"""A loss is told once, another reason at once, and the same one now and then."""

from __future__ import annotations

from ztunnel.supervisor.outage import LINE_EVERY_S, Outage


def test_a_loss_is_told_once_and_then_now_and_then() -> None:
    outage = Outage()
    told = [outage.broken("away", at / 10) for at in range(int(LINE_EVERY_S * 10) + 2)]
    assert told[0] == 1
    assert [each for each in told if each is not None] == [1, int(LINE_EVERY_S * 10)]


def test_another_reason_is_told_at_once() -> None:
    outage = Outage()
    assert outage.broken("away", 0.0) == 1
    assert outage.broken("away", 0.1) is None
    assert outage.broken("refused", 0.2) == 2
    assert outage.broken("away", 0.3) == 1


def test_the_next_loss_is_told_too() -> None:
    outage = Outage()
    assert outage.broken("away", 0.0) == 1
    assert outage.broken("away", 0.1) is None
    outage.connected()
    assert outage.broken("away", 0.2) == 1
