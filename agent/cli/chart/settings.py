"""Settings of an installation: the chart's defaults, a file's, and `--set`'s; checked. Pure but for
reading the file."""

from __future__ import annotations

import json
from collections.abc import Iterable
from copy import deepcopy
from pathlib import Path
from typing import Any

from agent.cli.chart import schema
from agent.cli.chart.assignment import Step, assign, assignments
from agent.cli.chart.functions import from_yaml, shown
from agent.cli.chart.release import Chart
from control.kit.errors import ConfigError

FILE_BYTES_MAX = 1024 * 1024
PROBLEMS_MAX = 10
Settings = dict[str, Any]


def given(chart: Chart, words: Iterable[str], base: Settings | None = None) -> Settings:
    """The user's own: `base` and over it the words of `--set`. Raises ConfigError."""
    found = deepcopy(base or {})
    about = json.loads(chart.files["values.schema.json"])
    for text in words:
        for path, value in assignments(text):
            assign(found, path, _as_wanted(about, path, value))
    return found


def _as_wanted(about: schema.Schema, path: tuple[Step, ...], value: Any) -> Any:
    """Text where text is wanted: a tag of 20 is no number."""
    is_text = schema.part(about, path).get("type") == "string"
    return shown(value) if is_text and isinstance(value, int) else value


def whole(chart: Chart, own: Settings) -> Settings:
    """The chart's defaults with the user's settings over them, checked. Raises ConfigError."""
    found = from_yaml(chart.files["values.yaml"])
    _lay_over(found, own)
    about = json.loads(chart.files["values.schema.json"])
    wrong = list(schema.problems(found, about))
    if wrong:
        more = f"\n… and {len(wrong) - PROBLEMS_MAX} more" if len(wrong) > PROBLEMS_MAX else ""
        raise ConfigError("\n".join(wrong[:PROBLEMS_MAX]) + more)
    return dict(found)


def settings(chart: Chart, words: Iterable[str]) -> Settings:
    return whole(chart, given(chart, words))


def _lay_over(into: Settings, own: Settings) -> None:
    """A null takes a default away, as with Helm."""
    for key, value in own.items():
        there = into.get(key)
        if value is None:
            into.pop(key, None)
        elif isinstance(there, dict) and isinstance(value, dict):
            _lay_over(there, value)
        else:
            into[key] = deepcopy(value)


def read(path: Path) -> Settings:
    """A file of settings, as for `helm -f`. Raises ConfigError."""
    try:
        with open(path, "rb") as handle:
            data = handle.read(FILE_BYTES_MAX + 1)
    except OSError as exc:
        raise ConfigError(f"{path}: {exc.strerror}") from exc
    if len(data) > FILE_BYTES_MAX:
        raise ConfigError(f"{path}: over {FILE_BYTES_MAX} bytes")
    try:
        found = from_yaml(data.decode())
    except ValueError as exc:
        raise ConfigError(f"{path}: {exc}") from exc
    if not isinstance(found, dict):
        raise ConfigError(f"{path}: no mapping of settings")
    return found


def merged(base: Settings, over: Settings) -> Settings:
    """`over` wins; a null stays, to take a default away later."""
    found = deepcopy(base)
    for key, value in over.items():
        there = found.get(key)
        if isinstance(there, dict) and isinstance(value, dict):
            found[key] = merged(there, value)
        else:
            found[key] = deepcopy(value)
    return found
