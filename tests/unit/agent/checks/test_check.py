"""The verdict of one check, and its JSON."""

from __future__ import annotations

import json

from agent.checks.check import Result, judged


def test_a_check_without_an_error_has_passed_and_needs_no_hint() -> None:
    found = judged("TUL0000", "kernel", "it is well", hint="do this")
    assert (found.result, found.error, found.hint) == (Result.OK, "", "")


def test_a_failed_check_is_as_bad_as_it_was_declared() -> None:
    assert judged("TUL0000", "kernel", "it is well", error="no").result is Result.ERROR
    mild = judged("TUL0000", "kernel", "it is well", error="no", hint="do", level=Result.WARNING)
    assert (mild.result, mild.hint) == (Result.WARNING, "do")


def test_a_check_is_json() -> None:
    found = judged("TUL0000", "kernel", "it is well", error="no").as_json()
    assert json.loads(json.dumps(found)) == {
        "code": "TUL0000",
        "category": "kernel",
        "description": "it is well",
        "result": "error",
        "error": "no",
        "hint": "",
    }
