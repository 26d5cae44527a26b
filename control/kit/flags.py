"""Types of command-line flags that several of our programs have."""

from __future__ import annotations

from collections.abc import Callable
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


class Parsed(click.ParamType[Any]):
    """A flag whose text is parsed by a function that raises ConfigError."""

    def __init__(self, name: str, parse: Callable[[str], Any]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return self._parse(value) if isinstance(value, str) else value
        except ConfigError as exc:
            self.fail(str(exc), param, ctx)


def option(name: str, *others: str, **fields: Any) -> Callable[[Any], Any]:
    """Flag with a variable of its own (TULLE_ and its name), and others that mean the same."""
    flag = name.split("/")[0].removeprefix("--")
    own = "TULLE_" + flag.upper().replace("-", "_")
    fields.setdefault("show_default", True)
    return click.option(name, envvar=[own, *others], show_envvar=True, **fields)
