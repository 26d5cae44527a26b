"""The course of a list and watch, step by step, without a server."""

from __future__ import annotations

import random

import pytest

from control.kube.errors import (
    AccessError,
    ApiError,
    EventError,
    TooLargeAnswer,
    Unreachable,
    UnreadableAnswer,
)
from control.kube.reflection import (
    ABSENT_S,
    BEGIN_SILENCE_S,
    COMPARE_S,
    PAGE_MAX,
    RETRY_MAX_S,
    SILENCE_S,
    Definition,
    Phase,
    Reflection,
)


def api(code: int, token: str = "", retry_after_s: float | None = None) -> ApiError:
    return ApiError(code, "x", "x", token=token, retry_after_s=retry_after_s)


def following(version: str = "7") -> Reflection:
    """A reflection that has its objects, in the first watch's quiet part."""
    state = Reflection(random=random.Random(1))
    state.next(0.0)
    assert state.line(version, True, 0.1)
    return state


def by_pages() -> Reflection:
    """Made by a server without WatchList."""
    state = Reflection(random=random.Random(1))
    state.next(0.0)
    assert state.failed(api(422), 0.0) == 0.0
    assert state.phase is Phase.PAGES
    return state


def test_it_begins_with_a_watch_that_brings_everything() -> None:
    request = Reflection(selector={"fieldSelector": "a=b"}).next(0.0)
    assert request.is_watch
    fields = dict(request.parameters)
    assert 240 <= int(fields.pop("timeoutSeconds")) <= 480
    assert fields == {
        "fieldSelector": "a=b",
        "watch": "true",
        "allowWatchBookmarks": "true",
        "sendInitialEvents": "true",
        "resourceVersionMatch": "NotOlderThan",
    }


def test_the_mark_ends_the_pass_and_the_watch_goes_on_from_there() -> None:
    state = Reflection()
    state.next(0.0)
    assert not state.line("3", False, 0.0)
    assert not state.is_synced
    assert state.line("7", True, 0.0)
    assert state.is_synced
    assert not state.line("9", False, 0.0)
    assert not state.line("", False, 0.0)  # without a version the last one counts
    assert state.ended(300.0) == 0.0
    assert state.next(300.0).parameters["resourceVersion"] == "9"


def test_silence_may_be_longer_behind_the_mark_than_before_it() -> None:
    """There a bookmark comes each minute, in the very same answer."""
    state = Reflection()
    state.next(0.0)
    assert state.silence_s == BEGIN_SILENCE_S
    state.line("7", True, 0.0)
    assert state.silence_s == SILENCE_S > 60.0


def test_without_watchlist_it_goes_by_pages_and_never_asks_again() -> None:
    state = by_pages()
    assert state.next(0.0).parameters == {"limit": str(PAGE_MAX)}
    assert not state.page("5", "token", 0.0)
    assert state.ended(0.0) == 0.0
    assert state.next(0.0).parameters["continue"] == "token"
    assert state.page("6", "", 0.0)
    assert state.next(0.0).parameters["resourceVersion"] == "6"
    state.failed(api(410), 1.0)
    assert not state.next(1.0).is_watch


@pytest.mark.parametrize("gone", [api(410), EventError(410, "Expired", "old"), api(504)])
def test_a_version_that_is_too_old_or_too_new_begins_a_pass(gone: ApiError) -> None:
    state = following()
    state.next(1.0)
    assert state.failed(gone, 1.0) > 0
    assert state.next(2.0).parameters["sendInitialEvents"] == "true"
    assert state.is_synced, "what is known stays in force"


@pytest.mark.parametrize("passing", [api(429), api(500), api(503), api(401), api(403)])
def test_other_refusals_keep_the_version(passing: ApiError) -> None:
    state = following()
    state.next(1.0)
    state.failed(passing, 1.0)
    assert state.next(2.0).parameters["resourceVersion"] == "7"
    assert state.trouble is passing


def test_an_expired_list_goes_on_with_the_new_token_and_is_made_again() -> None:
    state = by_pages()
    state.next(0.0)
    state.page("5", "old", 0.0)
    state.seen = {("a", "first")}
    state.next(0.0)
    assert state.failed(api(410, token="new"), 0.0) == 0.0
    assert state.next(0.0).parameters["continue"] == "new"
    assert not state.page("9", "", 0.0), "torn: nothing may be called gone"
    assert not state.is_synced
    assert state.ended(0.0) > 0.0
    assert "continue" not in state.next(1.0).parameters
    assert state.page("10", "", 1.0)
    assert state.is_synced


def test_an_expired_list_without_a_token_begins_anew() -> None:
    state = by_pages()
    state.page("5", "old", 0.0)
    state.seen = {("a", "b")}
    assert state.failed(api(410), 0.0) > 0
    assert "continue" not in state.next(0.0).parameters
    assert not state.seen


def test_a_page_that_fails_is_asked_for_again() -> None:
    state = by_pages()
    state.page("5", "token", 0.0)
    state.seen = {("a", "b")}
    state.failed(Unreachable("x"), 0.0)
    assert state.next(0.0).parameters["continue"] == "token"
    assert state.seen


def test_silence_from_a_future_version_begins_a_pass() -> None:
    state = following()
    state.next(100.0)
    state.failed(Unreachable("silent"), 100.0 + SILENCE_S)
    assert "sendInitialEvents" in state.next(200.0).parameters


def test_a_connection_that_breaks_keeps_the_version() -> None:
    state = following()
    state.next(100.0)
    state.line("8", False, 200.0)
    state.failed(Unreachable("reset"), 201.0)
    assert state.next(202.0).parameters["resourceVersion"] == "8"


def test_a_server_that_passes_over_the_parameters_of_watchlist() -> None:
    """It sends what there is and then nothing: no mark."""
    state = Reflection()
    state.next(0.0)
    state.line("3", False, 0.0)
    state.failed(Unreachable("silent"), BEGIN_SILENCE_S)
    assert not state.next(31.0).is_watch
    state = Reflection()
    state.next(0.0)
    assert state.ended(1.0) > 0.0
    assert not state.next(2.0).is_watch


def test_a_first_watch_that_breaks_again_and_again_goes_by_pages() -> None:
    state = Reflection()
    for _ in range(3):
        assert state.next(0.0).is_watch
        state.failed(Unreachable("reset"), 0.1)
    assert not state.next(0.0).is_watch


def test_a_kind_that_is_not_installed_is_empty_and_looked_for_again() -> None:
    state = Reflection(paths=2, may_be_absent=True)
    assert state.next(0.0).path == 0
    assert state.failed(api(404), 0.0) == 0.0
    assert state.next(0.0).path == 1
    state.failed(api(404), 0.0)
    assert state.is_in_doubt
    assert not state.is_synced
    assert state.defined(Definition.NONE, "x") >= ABSENT_S * 0.8
    assert state.is_absent
    assert state.is_synced
    assert state.trouble is None
    assert state.next(30.0).path == 0
    state.line("1", True, 30.0)
    assert not state.is_absent


@pytest.mark.parametrize("is_known", [True, False])
def test_a_kind_that_is_defined_and_not_served_does_not_count_as_empty(is_known: bool) -> None:
    state = Reflection(may_be_absent=True)
    state.next(0.0)
    if is_known:
        state.line("1", True, 0.0)
    for _ in range(5):
        state.failed(api(404), 1.0)
        state.defined(Definition.THERE, "policies.x")
        assert not state.is_absent
        assert state.is_synced is is_known
        assert "policies.x is there, and not served" in str(state.trouble)


def test_one_answer_proves_nothing_when_the_definition_may_not_be_asked_for() -> None:
    state = Reflection(may_be_absent=True)
    state.next(0.0)
    state.line("1", True, 0.0)
    for is_last in (False, True):
        state.failed(api(404), 1.0)
        state.defined(Definition.HIDDEN, "x")
        assert state.is_absent is is_last


def test_a_core_kind_is_never_absent() -> None:
    state = Reflection()
    for _ in range(5):
        state.next(0.0)
        assert state.failed(api(404), 0.0) > 0.0
    assert not state.is_absent
    assert not state.is_synced
    assert state.trouble is not None


def test_pauses_grow_with_jitter_up_to_a_bound_and_begin_anew_after_a_success() -> None:
    state = following()
    pauses = [state.failed(Unreachable("x"), 1.0) for _ in range(12)]
    assert len(set(pauses)) == len(pauses)
    assert max(pauses) <= RETRY_MAX_S * 1.5
    assert min(pauses[6:]) >= RETRY_MAX_S * 0.5
    state.line("8", False, 2.0)
    assert state.trouble is None
    assert state.failed(Unreachable("x"), 3.0) < 1.0


def test_the_server_says_when_to_come_again() -> None:
    assert following().failed(api(429, retry_after_s=30.0), 1.0) == 30.0


def test_a_watch_that_ends_at_once_is_not_asked_for_at_once() -> None:
    state = following()
    state.next(1.0)
    assert state.ended(1.1) > 0.0
    state.next(2.0)
    state.line("8", False, 2.0)
    assert 0.0 < state.ended(2.1) < 1.0
    state.next(3.0)
    assert state.ended(10.0) == 0.0


def test_a_pass_is_made_now_and_then_to_compare() -> None:
    state = following()
    assert "resourceVersion" in state.next(COMPARE_S * 0.7).parameters
    assert "sendInitialEvents" in state.next(COMPARE_S * 1.3).parameters


def test_answers_that_are_too_large_are_asked_for_in_smaller_parts() -> None:
    state = by_pages()
    for _ in range(20):
        state.next(0.0)
        state.failed(TooLargeAnswer("x"), 0.0)
    assert state.next(0.0).parameters["limit"] == "1"


@pytest.mark.parametrize("broken", [UnreadableAnswer("x"), TooLargeAnswer("x")])
def test_a_watch_that_cannot_be_read_is_followed_by_pages(broken: UnreadableAnswer) -> None:
    state = following()
    state.next(1.0)
    state.failed(broken, 1.0)
    assert not state.next(2.0).is_watch


def test_a_token_file_that_cannot_be_read_is_tried_again() -> None:
    state = following()
    state.next(1.0)
    assert state.failed(AccessError("x"), 1.0) > 0.0
    assert state.next(2.0).parameters["resourceVersion"] == "7"


def test_a_watch_that_is_taken_up_again_ends_the_trouble() -> None:
    state = following()
    state.failed(Unreachable("x"), 1.0)
    state.next(2.0)
    state.opened()
    assert state.trouble is None
    first = Reflection()
    first.failed(Unreachable("x"), 1.0)
    first.opened()
    assert first.trouble is not None, "nothing is known yet"
