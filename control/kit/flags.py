"""Types of command-line flags that several of our programs have."""

from __future__ import annotations

from typing import Any

import click

from control.kit.durations import duration_s
from control.kit.errors import ConfigError
from control.kit.listen import listen_address


class Duration(click.ParamType[float]):
    """A duration within bounds, as seconds; see `control.kit.durations` for its syntax."""

    name = "DURATION"

    def __init__(self, min_s: float = 0.0, max_s: float = float("inf")) -> None:
        self._min_s = min_s
        self._max_s = max_s

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        try:
            seconds = duration_s(value) if isinstance(value, str) else float(value)
        except ConfigError as exc:
            self.fail(str(exc), param, ctx)
        if seconds < self._min_s:
            self.fail(f"{value}: at least {self._min_s:.15g}s", param, ctx)
        if seconds > self._max_s:
            self.fail(f"{value}: at most {self._max_s:.15g}s", param, ctx)
        return seconds


class ListenAddress(click.ParamType[str]):
    """ADDR:PORT to listen on, or a word that says not to, as the text that was given."""

    name = "ADDR:PORT"

    def __init__(self, *never: str) -> None:
        self._never = never

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            if value not in self._never:
                listen_address(value)
        except ConfigError as exc:
            self.fail(str(exc), param, ctx)
        return str(value)
