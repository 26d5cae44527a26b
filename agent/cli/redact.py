"""Removes secrets from a dump. Pure.

Secrets are found by name and by form: a field that is called a secret loses its value, and so does
any text with a private key or a bearer token in it. Certificates are public and stay.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any

REDACTED = "<redacted>"

_SECRET_NAMES = re.compile(
    r"(?i)^(.*[_-])?(token|secret|password|passphrase|credentials?|authorization|api[_-]?key"
    r"|private[_-]?key|key[_-]?pem|privatekeypem)$"
)
_KEY_BLOCK = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*-----|$)", re.DOTALL
)
_JWT = re.compile(r"eyJ[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]{4,}\.?[A-Za-z0-9_-]*")
_BEARER = re.compile(r"(?i)\bbearer\s+[A-Za-z0-9._~+/=-]+")
_BASE64 = re.compile(r"[A-Za-z0-9+/]{40,}={0,2}")
_BASE64_TEXT_BYTES_MAX = 1024 * 1024  # a longer one is no key


def redact(value: Any, name: str = "") -> Any:
    """A copy of the value without secrets."""
    if isinstance(value, dict):
        return {key: redact(item, str(key)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [redact(item, name) for item in value]
    if not isinstance(value, str):
        return value
    if value and _SECRET_NAMES.match(name):
        return REDACTED
    return clean_text(value)


def clean_text(text: str) -> str:
    text = _KEY_BLOCK.sub(REDACTED, text)
    text = _JWT.sub(REDACTED, text)
    text = _BEARER.sub(REDACTED, text)
    return _BASE64.sub(lambda match: REDACTED if _hides_key(match[0]) else match[0], text)


def _hides_key(text: str) -> bool:
    if len(text) > _BASE64_TEXT_BYTES_MAX:
        return False
    try:
        plain = base64.b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        return False
    return b"PRIVATE KEY-----" in plain
