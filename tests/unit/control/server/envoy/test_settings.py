from __future__ import annotations

from control.server.envoy.settings import DEFAULTS


def test_both_families_are_taken_and_nothing_is_traced() -> None:
    assert (DEFAULTS.address, DEFAULTS.port) == ("::", 15008)
    assert DEFAULTS.tracing is None
