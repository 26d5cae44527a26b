"""Durations on command lines."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.kit.durations import duration_s
from control.kit.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5s", 5),
        ("150ms", 0.15),
        ("24h", 86400),
        ("1.5m", 90),
        ("7", 7),
        ("50us", 5e-5),
        ("0", 0),
        ("365d", 365 * 86400),
        (" 2s ", 2),
    ],
)
def test_durations(text: str, expected: float) -> None:
    assert duration_s(text) == pytest.approx(expected)


@pytest.mark.parametrize("text", ["", "s", "-1s", "5 s", "5x", "1e3", "inf", "nan", "5s5s", "٣s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ConfigError):
        duration_s(text)


@given(st.text(max_size=12))
def test_any_text_is_a_duration_or_an_error(text: str) -> None:
    try:
        assert 0 <= duration_s(text) < float("inf")
    except ConfigError:
        pass
