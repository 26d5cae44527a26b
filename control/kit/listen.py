"""Addresses to listen on, as operators write them."""

from __future__ import annotations

from control.kit.errors import ConfigError


def listen_address(text: str) -> tuple[str, int]:
    """ADDR:PORT as host and port; the brackets of an IPv6 address are optional. ConfigError: it is
    not."""
    host, colon, port = text.rpartition(":")
    if not (colon and port.isascii() and port.isdecimal() and int(port) < 1 << 16):
        raise ConfigError(f"must be ADDRESS:PORT, not {text!r}")
    return host.strip("[]"), int(port)
