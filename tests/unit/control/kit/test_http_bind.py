"""Addresses that a server is told to listen on."""

from __future__ import annotations

import pytest

from control.kit import http
from control.kit.errors import ConfigError


@pytest.mark.parametrize("where", ["", "127.0.0.1", ":", "127.0.0.1:", "x:65536", "x:-1", "x:http"])
def test_what_is_no_address_and_port_is_refused_in_words(where: str) -> None:
    with pytest.raises(ConfigError, match="must be ADDRESS:PORT"):
        http.bind(where)
