"""Words about a scope that is not there, and the scopes of libraries."""

from __future__ import annotations

import logging

from control.kit import scopes


def test_the_scope_that_was_meant_comes_first() -> None:
    assert "perhaps 'access'" in scopes.complaint("acess")
    assert "perhaps" not in scopes.complaint("qqq")


def test_a_librarys_logger_is_a_scope() -> None:
    assert not scopes.is_known("test.library")
    logging.getLogger("test.library.part")
    assert scopes.is_known("test.library")
