"""Log lines: readable, one line each, and impossible to forge."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from control.kit import log as kit_log
from control.kit.log import FIELD_CHARS_MAX, JsonFormatter, TextFormatter, event, quote


@pytest.fixture(autouse=True)
def unchanged() -> Iterator[None]:
    """The process's loggers are as before afterwards."""
    root, scope = logging.getLogger(), logging.getLogger("test.scope")
    level, handlers = root.level, root.handlers[:]
    for name in ("test.other", "test.third"):
        logging.getLogger(name)
    yield
    root.setLevel(level)
    root.handlers[:] = handlers
    scope.setLevel(logging.NOTSET)


def record(**fields: object) -> logging.LogRecord:
    found = logging.makeLogRecord(
        {"name": "xds", "levelname": "INFO", "levelno": 20, "msg": "xds.connected", "created": 0.0}
    )
    found.fields = fields
    return found


def test_a_text_line() -> None:
    assert TextFormatter().format(record(node="n1", error="a b\n2026 info forged")) == (
        "1970-01-01T00:00:00.000000Z\tinfo\txds\txds.connected"
        ' node=n1 error="a b\\n2026 info forged"'
    )


def test_a_json_line() -> None:
    entry = json.loads(JsonFormatter().format(record(port=80, peer=Path("/x"), message_id="a")))
    assert entry["message"] == "xds.connected"
    assert (entry["port"], entry["peer"]) == (80, "/x")


@pytest.mark.parametrize(
    ("value", "expected"), [("", '""'), ("a=b", '"a=b"'), ('a"', '"a\\""'), ("ü", '"\\u00fc"')]
)
def test_quoting(value: str, expected: str) -> None:
    assert quote(value) == expected
    assert len(quote("x" * 10_000)) <= FIELD_CHARS_MAX + 10


def test_levels_by_scope_and_nothing_on_error() -> None:
    kit_log.set_level("warning,test.scope:debug")
    assert kit_log.current_levels()["test.scope"] == "debug"
    with pytest.raises(ValueError):
        kit_log.set_level("debug,x:loud")
    assert kit_log.current_levels()[""] == "warning"
    kit_log.set_level("off,test.scope=trace")  # as in RUST_LOG
    assert kit_log.current_levels()["test.scope"] == "debug"
    assert not logging.getLogger().isEnabledFor(logging.CRITICAL)
    assert kit_log.current_levels()[""] == "off"


def test_scopes_go_back_to_their_start() -> None:
    kit_log.setup("warning,test.scope:error", "text")
    at_start = kit_log.current_levels()
    assert at_start["test.scope"] == "error"
    kit_log.set_level("debug,test.scope:info,test.other:debug")
    kit_log.set_level("test.other:default")
    assert "test.other" not in kit_log.current_levels()
    kit_log.set_level("test.scope:default")
    assert kit_log.current_levels() == {**at_start, "": "debug"}
    kit_log.set_level("test.other:debug")
    kit_log.set_level("reset")
    assert kit_log.current_levels() == at_start


def test_a_whole_spec_takes_the_place_of_all_levels() -> None:
    kit_log.set_level("info,test.scope:debug,test.other:error")
    spec = kit_log.current_spec()
    kit_log.set_level("warning,test.third:info")
    kit_log.set_level(spec, whole=True)
    assert kit_log.current_spec() == spec
    assert "test.third" not in kit_log.current_levels()


def test_a_scope_that_is_not_there_is_refused_with_those_that_are() -> None:
    before = kit_log.current_levels()
    for spec in ("acess:debug", "debug,acess=info", "acess:default"):
        with pytest.raises(
            ValueError, match=r"'acess', perhaps 'access'; there are: access, admin"
        ):
            kit_log.set_level(spec)
        with pytest.raises(ValueError, match="'acess'"):
            kit_log.setup(spec, "text", is_strict=True)
    assert kit_log.current_levels() == before


def test_a_scope_of_another_process_does_no_harm_in_a_whole_text() -> None:
    kit_log.set_level("info,hickory_server::server:off", whole=True)
    assert kit_log.unknown_scopes("info,hyper:off") == ["hyper"]
    kit_log.set_level("reset")


def test_a_long_field_is_cut_in_json_too() -> None:
    entry = json.loads(JsonFormatter().format(record(name="x" * 10_000)))
    assert len(entry["name"]) == FIELD_CHARS_MAX


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()])
def test_an_exception_is_part_of_the_line_or_follows_it(formatter: logging.Formatter) -> None:
    try:
        raise ValueError("a bug")
    except ValueError as exc:
        found = record()
        found.exc_info = (type(exc), exc, exc.__traceback__)
    assert "ValueError: a bug" in formatter.format(found)


def test_a_stamp_has_six_digits_even_at_a_full_second() -> None:
    assert kit_log.stamp(datetime(2026, 1, 2, tzinfo=UTC)) == "2026-01-02T00:00:00.000000Z"


@pytest.mark.parametrize(
    ("fmt", "expected"), [("text", "\ttest.scope\tthing.done port=80\n"), ("json", '"port": 80}\n')]
)
def test_an_event_reaches_the_stream_unless_its_level_is_off(fmt: str, expected: str) -> None:
    stream = io.StringIO()
    kit_log.setup("info", fmt, stream)
    event(logging.getLogger("test.scope"), logging.DEBUG, "thing.begun")
    event(logging.getLogger("test.scope"), logging.INFO, "thing.done", port=80)
    assert stream.getvalue().count("\n") == 1
    assert stream.getvalue().endswith(expected)
