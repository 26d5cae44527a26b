"""The CONFIG frame: defaults, and values that make no sense."""

from __future__ import annotations

import pytest

from ztunnel.connections.engine import EngineConfig
from ztunnel.worker.settings import WorkerSettings


def test_missing_keys_have_defaults() -> None:
    settings = WorkerSettings.parse({})
    assert settings.engine == EngineConfig("cluster.local", 0, "")
    assert (settings.log_level, settings.log_format, settings.access_log) == ("info", "text", True)
    assert (settings.spin_us, settings.drain_s) == (0, 5.0)
    assert (settings.fixed_ports, settings.direct) == (False, False)


def test_what_the_supervisor_says_counts() -> None:
    said = {"trust_domain": "td", "worker": 3, "node": "n1", "spin_us": 50, "direct": True}
    settings = WorkerSettings.parse(said)
    assert settings.engine == EngineConfig("td", 3, "n1")
    assert (settings.spin_us, settings.direct) == (50, True)


@pytest.mark.parametrize("wrong", [{"worker": "many"}, {"spin_us": None}, {"drain_s": []}])
def test_nonsense_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises((TypeError, ValueError)):
        WorkerSettings.parse(wrong)
