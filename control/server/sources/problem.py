"""A problem of the operator's input, as a value. Sources find it; log and admin pages show it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from control.kit.errors import ConfigError

TEXT_CHARS_MAX = 1024  # a name in a manifest may have megabytes
UNREADABLE = "unreadable"  # the source cannot be read, in whole or in part


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """`reason` is one of few stable words; `message` says what is wrong and what happens now."""

    file: str
    line: int
    object: str  # "AuthorizationPolicy shop/web", or "" when that could not be read
    reason: str
    message: str

    def __post_init__(self) -> None:
        """A manifest's words are shown on terminals: on one line, without commands to them."""
        for name in ("file", "object", "message"):
            object.__setattr__(self, name, shown(getattr(self, name)))

    def __str__(self) -> str:
        name = f" {self.object}:" if self.object else ""
        place = f"{self.file}:{self.line}" if self.line else self.file  # an API has no lines
        return f"{place}:{name} {self.message} ({self.reason})"


def shown(text: str) -> str:
    """Text from a manifest as it can be shown: escapes for what is not printable, and a bound."""
    if len(text) > TEXT_CHARS_MAX:
        text = text[: TEXT_CHARS_MAX - 1] + "…"
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


class Invalid(ConfigError):
    """One document or object cannot be used."""

    reason: ClassVar[str] = "invalid"

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


class NotYaml(Invalid):
    reason = "yaml"


class TooLarge(Invalid):
    reason = "too_large"


class UnknownField(Invalid):
    reason = "unknown_field"


class UnknownKind(Invalid):
    reason = "unknown_kind"


class WrongApiVersion(Invalid):
    reason = "api_version"
