"""Addresses to listen on: read, or refused in words."""

from __future__ import annotations

import pytest

from control.kit.errors import ConfigError
from control.kit.listen import listen_address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:80", ("127.0.0.1", 80)),
        ("[::]:15012", ("::", 15012)),
        ("::1:80", ("::1", 80)),
        (":0", ("", 0)),
    ],
)
def test_an_address_and_a_port(text: str, address: tuple[str, int]) -> None:
    assert listen_address(text) == address


@pytest.mark.parametrize(
    "text",
    ["", "127.0.0.1", ":", "127.0.0.1:", "x:65536", "x:-1", "x:http", "x:\u0661", "x:\u00b2"],
)
def test_what_is_no_address_and_port_is_refused_in_words(text: str) -> None:
    with pytest.raises(ConfigError, match="must be ADDRESS:PORT"):
        listen_address(text)
