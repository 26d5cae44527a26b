"""Doors: what only this host can reach."""

from __future__ import annotations

import pytest

from control.kit.door import is_loopback_port


@pytest.mark.parametrize(
    ("where", "is_loopback"),
    [
        ("127.0.0.1:15000", True),
        ("127.9.9.9:1", True),
        ("[::1]:15000", True),
        ("localhost:15000", True),
        ("0.0.0.0:15000", False),
        ("[::]:15000", False),
        ("10.0.0.1:15000", False),
        ("localhost.evil.example:15000", False),
        (":15000", False),
    ],
)
def test_a_port_of_this_host_alone(where: str, is_loopback: bool) -> None:
    assert is_loopback_port(where) is is_loopback
