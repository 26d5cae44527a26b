"""Failures of rendering the chart."""

from __future__ import annotations

from typing import ClassVar

from control.kit.errors import ConfigError


class ChartError(ConfigError):
    """The chart cannot be rendered: damaged, or written with more than is read here."""

    reason: ClassVar[str] = "config"
