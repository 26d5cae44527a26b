"""The tour's talk: claims with evidence, one that fails ends it, a summary at the end."""

from __future__ import annotations

import pytest

from agent.lab.tour.report import EVIDENCE_CHARS_MAX, ClaimFailed, Report
from tests.support.clock import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def report(clock: FakeClock) -> Report:
    return Report(clock, colour=False)


def test_a_claim_that_holds_is_counted_and_shown(
    report: Report, capsys: pytest.CaptureFixture[str]
) -> None:
    report.claim(True, "ratings answers", "HTTP/1.1\n  200")
    report.claim(True, "bare")
    assert capsys.readouterr().out == "  √ ratings answers  [HTTP/1.1 200]\n  √ bare\n"
    assert report.claims == 2


def test_a_claim_that_does_not_hold_ends_the_tour(
    report: Report, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ClaimFailed, match="nobody gets in"):
        report.claim(False, "nobody gets in", "somebody did")
    assert capsys.readouterr().out == "  × nobody gets in  [somebody did]\n"
    assert report.claims == 0


def test_evidence_is_one_line_of_bounded_length(
    report: Report, capsys: pytest.CaptureFixture[str]
) -> None:
    report.claim(True, "long", "x\n" * 1000)
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert len(out) < EVIDENCE_CHARS_MAX + 20


def test_the_summary_has_times_figures_and_the_number_of_claims(
    report: Report, clock: FakeClock, capsys: pytest.CaptureFixture[str]
) -> None:
    with report.step("1. Up"):
        clock.pass_s(2.5)
        report.run("tulle status")
        report.show("one\ntwo\n")
    report.claim(True, "it is up")
    report.figure("RSS", "40 MiB")
    report.figure("p99 of all", "1 ms")
    report.summary()
    out = capsys.readouterr().out
    assert "  $ tulle status\n      one\n      two\n" in out
    assert "     2.5 s  1. Up\n" in out
    assert "  RSS         40 MiB\n  p99 of all  1 ms\n" in out
    assert out.endswith("1 claims checked, all of them hold.\n")


def test_a_step_that_fails_has_no_time(report: Report) -> None:
    with pytest.raises(ClaimFailed), report.step("1. Up"):
        report.claim(False, "it is up")
    assert report.durations == []


def test_colours_are_for_terminals(clock: FakeClock, capsys: pytest.CaptureFixture[str]) -> None:
    Report(clock, colour=True).claim(True, "it is up")
    assert "\x1b[32m√\x1b[0m" in capsys.readouterr().out
