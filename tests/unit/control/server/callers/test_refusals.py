"""Reasons of calls: what is about the token says so in its word."""

from __future__ import annotations

from control.server.callers.refusals import CallRefusal
from control.server.callers.tokens import Unauthenticated


def test_an_error_keeps_its_reason_and_shows_its_word() -> None:
    error = Unauthenticated(CallRefusal.TOKEN_EXPIRED)
    assert (error.why, str(error)) == (CallRefusal.TOKEN_EXPIRED, "token_expired")


def test_words_are_looked_up_by_name() -> None:
    assert CallRefusal["TOKEN_NODE"].word == "token_node"
