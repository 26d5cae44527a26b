"""Deferred handshakes: apps that hear of a connection together with its first bytes."""

from __future__ import annotations

from ztunnel.connections.first_word import FirstWord


def test_an_app_is_told_at_once_until_its_clients_have_spoken_first() -> None:
    word = FirstWord()
    assert not word.may_wait
    word.seen(app_first=False, client_spoke=False)
    assert not word.may_wait
    word.seen(app_first=False, client_spoke=True)
    assert word.may_wait
    word.seen(app_first=False, client_spoke=False)
    assert word.may_wait


def test_an_app_that_has_spoken_first_never_waits_again() -> None:
    word = FirstWord()
    word.seen(app_first=False, client_spoke=True)
    word.seen(app_first=True, client_spoke=True)
    word.seen(app_first=False, client_spoke=True)
    assert not word.may_wait
