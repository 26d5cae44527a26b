"""Structured log lines: a constant event name and fields, as text or JSON."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Protocol

from control.kit import scopes

# Longer fields are cut: a peer must not fill the disk with one name.
FIELD_CHARS_MAX = 512

# Levels of Istio's ztunnel that Python has no name for.
_OTHER_LEVELS = {"TRACE": logging.DEBUG, "OFF": logging.CRITICAL + 1}

DEFAULT, RESET = "default", "reset"  # instead of a level: the one at the start; all of them
_SCOPE = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_set: set[str] = set()  # scopes whose level came from `set_level`
_at_start: dict[str, int | None] = {"": logging.INFO}
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


def setup(
    level: str, fmt: str, stream: LineStream | None = None, *, is_strict: bool = False
) -> None:
    """Send everything to standard error, or `stream`. `level` as in `set_level`; `fmt` is text or
    json. `is_strict`: ValueError for a scope that is not there."""
    if is_strict:
        expect_scopes(level)
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if fmt == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    global _at_start
    _at_start = dict(parse_levels(level))
    set_level(level, whole=True)


def parse_levels(spec: str) -> list[tuple[str, int | None]]:
    """(scope, level) pairs of `info,access:debug`; None stands for the level at the start.

    ValueError when a level does not exist, or when a scope has no name.
    """
    known: dict[str, int] = logging.getLevelNamesMapping() | _OTHER_LEVELS
    levels: list[tuple[str, int | None]] = []
    for part in spec.split(","):
        scope, colon, level = part.strip().replace("=", ":").rpartition(":")
        if colon and not _SCOPE.fullmatch(scope):
            raise ValueError(f"not a scope: {scope!r}")
        if level.lower() == DEFAULT:
            levels.append((scope, None))
        elif level.upper() in known and level.upper() != "NOTSET":
            levels.append((scope, known[level.upper()]))
        else:
            raise ValueError(f"not a log level: {level!r}")
    return levels


def unknown_scopes(spec: str) -> list[str]:
    """Scopes of a level text that are not there. Raises as `parse_levels` does."""
    return [scope for scope, _ in parse_levels(spec) if scope and not scopes.is_known(scope)]


def expect_scopes(spec: str) -> None:
    """ValueError, with the scopes there are, when `spec` has one that is not there."""
    for scope in unknown_scopes(spec):
        raise ValueError(scopes.complaint(scope))


def set_level(spec: str, *, whole: bool = False) -> None:
    """`info`, or `info,access:debug`: a level for all, then exceptions by logger name.

    `access=debug` is the same, as RUST_LOG has it; `access:default` goes back to the level at the
    start, and `reset` does so with everything. With `whole`, scopes that `spec` does not name have
    no level of their own, and one that is not there does no harm: it may be another process's.
    Raises ValueError and changes nothing when a level or a scope does not exist.
    """
    is_reset = spec.strip().lower() == RESET
    if not (whole or is_reset):
        expect_scopes(spec)
    levels = list(_at_start.items()) if is_reset else parse_levels(spec)
    if whole or is_reset:
        for scope in _set:  # levels that a library gives its own loggers stay
            logging.getLogger(scope).setLevel(logging.NOTSET)
        _set.clear()
    for scope, number in levels:
        if scope and not scopes.is_known(scope):
            continue  # a logger made for it here would be one that is there from now on
        if number is None:
            number = _at_start.get(scope) or (logging.NOTSET if scope else logging.INFO)
        if scope:
            _set.add(scope)
        logging.getLogger(scope or None).setLevel(number)


def current_levels() -> dict[str, str]:
    """Scope → level for the root ("") and every logger that has a level of its own."""
    found = {"": _level_name(logging.getLogger().level)}
    for name in sorted(logging.root.manager.loggerDict):
        logger = logging.getLogger(name)
        if logger.level:
            found[name] = _level_name(logger.level)
    return found


def current_spec() -> str:
    """The levels as one text for `set_level`."""
    levels = current_levels()
    return ",".join(f"{scope}:{level}" if scope else level for scope, level in levels.items())


def _level_name(number: int) -> str:
    return "off" if number > logging.CRITICAL else logging.getLevelName(number).lower()
