"""Wanted and written: only what differs is due, and failures come again later and later."""

from __future__ import annotations

from control.server.leader.ledger import RETRY_S, RETRY_S_MAX, Target, WriteLedger

A, B = Target("Pod", "shop", "a"), Target("Pod", "shop", "b")


def due(ledger: WriteLedger[str], now_s: float = 0.0) -> dict[Target, str | None]:
    return dict(ledger.due(now_s))


def test_only_what_differs_is_due() -> None:
    ledger = WriteLedger[str](removes=False)
    ledger.want({A: "x", B: "y"})
    assert due(ledger) == {A: "x", B: "y"}
    ledger.done(A, "x")
    ledger.saw({A: "x", B: "old"})
    assert due(ledger) == {B: "y"}
    ledger.want({A: "x2"})
    assert due(ledger) == {A: "x2"}, "what is no longer wanted stays"


def test_what_is_no_longer_wanted_is_removed_where_that_is_meant() -> None:
    ledger = WriteLedger[str](removes=True)
    ledger.want({A: "x"})
    ledger.saw({A: "x", B: "y"})
    assert due(ledger) == {B: None}
    ledger.done(B, None)
    assert due(ledger) == {}


def test_a_failure_waits_twice_as_long_each_time() -> None:
    ledger, now_s, waits = WriteLedger[str](removes=False), 0.0, []
    ledger.want({A: "x"})
    for _ in range(10):
        assert due(ledger, now_s) == {A: "x"}
        ledger.failed(A, "x", now_s)
        before_s = now_s
        while not due(ledger, now_s):
            now_s += 1.0
        waits.append(now_s - before_s)
    assert waits[:3] == [RETRY_S, RETRY_S * 2, RETRY_S * 4]
    assert waits[-1] == RETRY_S_MAX


def test_another_value_need_not_wait_for_a_failed_one() -> None:
    ledger = WriteLedger[str](removes=False)
    ledger.want({A: "x"})
    assert ledger.failed(A, "x", 0.0, wait_s=60.0), "told the first time"
    assert not ledger.failed(A, "x", 0.0, wait_s=60.0)
    assert due(ledger, 59.0) == {}
    ledger.want({A: "y"})
    assert due(ledger, 1.0) == {A: "y"}
    assert ledger.failed(A, "y", 1.0)


def test_an_object_that_was_made_anew_is_another_one() -> None:
    ledger = WriteLedger[str](removes=False)
    ledger.done(Target("P", "shop", "a", "u1"), "x")
    ledger.want({Target("P", "shop", "a", "u2"): "x"})
    assert len(due(ledger)) == 1
    assert str(Target("P", "shop", "a", "u1")) == "P shop/a"
    assert str(Target("P", "", "a")) == "P a"
