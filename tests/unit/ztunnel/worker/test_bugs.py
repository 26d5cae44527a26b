"""A bug in handling a connection is counted and leaves its traceback."""

from __future__ import annotations

import logging

import pytest

from ztunnel.loop.reactor import Reactor
from ztunnel.worker.bugs import Bugs


class Broken:
    def on_again(self) -> None:
        raise ZeroDivisionError("a bug")

    def on_bug(self) -> None:
        pass


def test_a_bug_is_counted_and_logged_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    bugs = Bugs()
    reactor = Reactor(bugs.report)
    reactor.again(Broken())
    with caplog.at_level(logging.ERROR, "ztunnel.worker"):
        reactor.turn(0)
    reactor.close()
    assert bugs.count == 1
    (record,) = caplog.records
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ZeroDivisionError)
    assert record.fields == {"kind": "Broken"}  # type: ignore[attr-defined]  # an extra of ours
