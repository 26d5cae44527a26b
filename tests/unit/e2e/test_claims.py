"""Claims with deadlines, in a time that a test moves."""

from __future__ import annotations

from tests.e2e.claims import Claims, summary
from tests.e2e.kubectl import CommandFailed
from tests.support.clock import FakeClock


def made() -> tuple[Claims, list[str]]:
    clock, said = FakeClock(), []
    return Claims(said.append, clock.monotonic_s, clock.pass_s), said


def test_a_claim_may_come_true_until_its_deadline() -> None:
    claims, said = made()
    answers = iter(["not yet", "not yet", ""])
    claims.begin("enrol")
    assert claims.within(10, "pods are captured", lambda: next(answers))
    assert said == ["== enrol", "ok     pods are captured (2.0 s)"]
    assert claims.failed == 0


def test_a_claim_that_does_not_is_told_with_its_last_answer() -> None:
    claims, said = made()
    assert not claims.within(2.5, "pods are captured", lambda: "p1 is not")
    assert said == ["FAILED pods are captured (2.5 s): p1 is not"]
    assert claims.failed == 1


def test_a_command_that_fails_and_an_answer_that_is_odd_are_no_end() -> None:
    claims, _ = made()

    def fails() -> str:
        raise CommandFailed("exit 1: no such host")

    assert not claims.within(1, "a", fails)
    assert not claims.within(1, "b", lambda: {}["missing"])
    assert not claims.done("c", fails)
    assert [each.wrong for each in claims.outcomes] == [
        "exit 1: no such host",
        "an answer that was not expected: KeyError: 'missing'",
        "exit 1: no such host",
    ]


def test_what_has_to_hold_throughout_fails_at_once() -> None:
    claims, _ = made()
    answers = iter(["", "", "p1 flapped"])
    assert not claims.throughout(20, "no probe fails", lambda: next(answers))
    assert claims.outcomes[0].took_s == 2.0
    assert claims.throughout(3, "no probe fails", lambda: "")
    assert claims.outcomes[1].took_s == 3.0


def test_the_summary_has_failures_figures_and_the_count() -> None:
    claims, _ = made()
    claims.begin("ztunnels")
    claims.figure("no request fails", "2 failed", "900 requests answered, 2 failed")
    claims.done("all is well", lambda: None)
    assert summary(claims.outcomes).splitlines() == [
        "FAILED ztunnels: no request fails: 2 failed",
        "no request fails: 900 requests answered, 2 failed",
        "1 of 2 claims hold",
    ]
