"""The host's conntrack, by its settings as files."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.datapath import conntrack


@pytest.mark.parametrize(
    ("count", "timeout", "remembers_s"),
    [
        ("3\n", "120\n", 120.0),
        ("0\n", "120\n", 0.0),  # nothing is tracked: no rule asks for it
        ("3\n", "86400\n", conntrack.REMEMBERS_S_MAX),
        ("3\n", "-1\n", 0.0),
        ("3\n", "often\n", 0.0),
        ("3\n", None, 0.0),
        (None, None, 0.0),
    ],
)
def test_the_host_says_how_long_it_remembers(
    tmp_path: Path, count: str | None, timeout: str | None, remembers_s: float
) -> None:
    for name, text in (("count", count), ("tcp_timeout_time_wait", timeout)):
        if text is not None:
            (tmp_path / f"nf_conntrack_{name}").write_text(text)
    assert conntrack.remembers_s(tmp_path) == remembers_s
