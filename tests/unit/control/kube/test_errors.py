"""Errors of an API server, as it was recorded to word them."""

from __future__ import annotations

import pytest

from control.kube.errors import RETRY_AFTER_S_MAX, ApiError, error_of, error_of_event
from tests.unit.control.kube.replay import recorded


def read(name: str) -> ApiError:
    head, _, body = recorded(name).partition(b"\r\n\r\n")
    first, *rest = head.decode().split("\r\n")
    headers = dict(each.split(": ", 1) for each in rest)
    return error_of(int(first.split()[1]), headers, body)


@pytest.mark.parametrize(
    ("name", "code", "kind"),
    [
        ("too-many-429", 429, "TooManyRequests"),
        ("unauthorized-401", 401, "Unauthorized"),
        ("forbidden-403", 403, "Forbidden"),
        ("cr-before-crd-404", 404, "NotFound"),
        ("get-404", 404, "NotFound"),
        ("list-continue-expired-410", 410, "Expired"),
        ("list-future-version", 504, "Timeout"),
        ("watchlist-no-bookmarks", 422, "Invalid"),
        ("cr-apply-conflict-409", 409, "Conflict"),
    ],
)
def test_a_recorded_error_keeps_its_code_and_reason(name: str, code: int, kind: str) -> None:
    error = read(name)
    assert (error.code, error.kind) == (code, kind)
    assert error.message


def test_a_refusal_in_plain_text_says_when_to_come_again() -> None:
    error = read("too-many-429")
    assert error.retry_after_s == 1.0
    assert error.message == "Too many requests, please try again later."


def test_an_expired_list_says_where_to_go_on() -> None:
    error = read("list-continue-expired-410")
    assert error.is_expired
    assert error.token.startswith("eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6LTEs")


def test_causes_name_their_field() -> None:
    assert read("cr-apply-conflict-409").causes
    (cause,) = read("watchlist-no-bookmarks").causes
    assert cause.startswith("resourceVersionMatch: ")


def test_the_error_event_of_a_watch() -> None:
    body = recorded("watch-old-version-410-event").partition(b'"object":')[2]
    assert error_of_event(body.partition(b"}\n")[0]).is_expired


@pytest.mark.parametrize("body", [b"", b"\xff\xfe", b"[]", b'"x"', b'{"code":"x"}', b"<html>"])
def test_any_bytes_give_an_error_with_the_code_of_the_answer(body: bytes) -> None:
    assert error_of(503, {}, body).code == 503
    assert error_of_event(body).code == 500


def test_a_wait_is_bounded_and_a_date_is_no_wait() -> None:
    assert error_of(429, {"Retry-After": "99999999"}, b"").retry_after_s == RETRY_AFTER_S_MAX
    assert (
        error_of(429, {"Retry-After": "Fri, 27 Nov 2026 05:38:18 GMT"}, b"").retry_after_s is None
    )
    assert error_of(429, {}, b'{"details":{"retryAfterSeconds":-5}}').retry_after_s is None
