"""Structured log lines: a constant event name and fields, as text or JSON."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Protocol

# Longer fields are cut: a peer must not fill the disk with one name.
FIELD_CHARS_MAX = 512

# Levels of Istio's ztunnel that Python has no name for.
_OTHER_LEVELS = {"TRACE": logging.DEBUG, "OFF": logging.CRITICAL + 1}

_PLAIN = re.compile(r"[A-Za-z0-9_./:@+%\[\]*,~-]+")


def event(log: logging.Logger, level: int, name: str, /, **fields: object) -> None:
    """Log `name` ("noun.verb", constant) with its fields; one call when switched off."""
    if log.isEnabledFor(level):
        log.log(level, name, extra={"fields": fields})


def quote(value: object) -> str:
    """One field as text: bare when harmless, else a JSON string, so no peer can forge a line."""
    text = str(value)
    if len(text) > FIELD_CHARS_MAX:
        text = text[:FIELD_CHARS_MAX] + "…"
    return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=True)


def text_pairs(fields: Mapping[str, object]) -> str:
    """` key=value` for each field."""
    return "".join([f" {key}={quote(value)}" for key, value in fields.items()])


def json_pairs(fields: Mapping[str, object]) -> str:
    """`, "key": value` for each field."""
    return "".join([f', "{key}": {_json_value(value)}' for key, value in fields.items()])


def _json_value(value: object) -> str:
    plain = value if isinstance(value, int | float | bool | None) else str(value)
    return json.dumps(plain[:FIELD_CHARS_MAX] if isinstance(plain, str) else plain)


class TextFormatter(logging.Formatter):
    """A line of text: `2026-11-22T10:00:00.123456Z info scope name key=value …`"""

    def format(self, record: logging.LogRecord) -> str:
        head = f"{_stamp(record)}\t{record.levelname.lower()}\t{record.name}\t{record.getMessage()}"
        tail = "\n" + self.formatException(record.exc_info) if record.exc_info else ""
        return head + text_pairs(getattr(record, "fields", {})) + tail


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, scope, message, then the fields."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": _stamp(record),
            "level": record.levelname.lower(),
            "scope": record.name,
            "message": record.getMessage(),
        }
        text = json.dumps(entry)[:-1] + json_pairs(getattr(record, "fields", {}))
        if record.exc_info:
            text += f', "exception": {json.dumps(self.formatException(record.exc_info))}'
        return text + "}"


def stamp(now: datetime) -> str:
    """An aware UTC time as every line has it."""
    return now.isoformat(timespec="microseconds")[:26] + "Z"


def _stamp(record: logging.LogRecord) -> str:
    return stamp(datetime.fromtimestamp(record.created, UTC))


class LineStream(Protocol):
    def write(self, line: str, /) -> object: ...

    def flush(self) -> None: ...


def setup(level: str, fmt: str, stream: LineStream | None = None) -> None:
    """Send everything to standard error, or `stream`. `level` as in `set_level`; `fmt` is text or
    json."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if fmt == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    set_level(level)


def set_level(spec: str) -> None:
    """`info`, or `info,access:debug`: a level for all, then exceptions by logger name.

    `access=debug` is the same, as RUST_LOG has it. Raises ValueError and changes nothing when a
    level does not exist.
    """
    known = logging.getLevelNamesMapping() | _OTHER_LEVELS
    levels: list[tuple[str, int]] = []
    for part in spec.split(","):
        scope, _, level = part.strip().replace("=", ":").rpartition(":")
        number = known.get(level.upper())
        if number is None:
            raise ValueError(f"not a log level: {level!r}")
        levels.append((scope, number))
    for scope, number in levels:
        logging.getLogger(scope or None).setLevel(number)


def current_levels() -> dict[str, str]:
    """Scope → level for the root ("") and every logger that has a level of its own."""
    found = {"": logging.getLevelName(logging.getLogger().level).lower()}
    for name in sorted(logging.root.manager.loggerDict):
        logger = logging.getLogger(name)
        if logger.level:
            found[name] = logging.getLevelName(logger.level).lower()
    return found
