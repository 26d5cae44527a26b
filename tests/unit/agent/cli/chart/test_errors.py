from __future__ import annotations

from agent.cli.chart.errors import ChartError
from control.kit.errors import ConfigError


def test_a_chart_that_cannot_be_rendered_is_wrong_input() -> None:
    assert issubclass(ChartError, ConfigError)
    assert ChartError.reason == ConfigError.reason
