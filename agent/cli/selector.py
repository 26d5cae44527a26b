"""Label selectors in kubectl's syntax, equality and existence: parse and match. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

_KEY = r"[A-Za-z0-9](?:[-A-Za-z0-9_./]*[A-Za-z0-9])?"
_VALUE = r"(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?)?"
_EQUALITY = re.compile(rf"({_KEY})\s*(!=|==|=)\s*({_VALUE})")
_EXISTENCE = re.compile(rf"(!?)\s*({_KEY})")


class SelectorError(ValueError):
    """An invalid selector; the message names the part."""


@dataclass(frozen=True, slots=True)
class Requirement:
    key: str
    value: str | None  # None: any
    negated: bool = False

    def holds(self, labels: Mapping[str, str]) -> bool:
        """As in Kubernetes, `key!=value` also holds where there is no such key."""
        if self.value is None:
            return (self.key in labels) is not self.negated
        return (labels.get(self.key) == self.value) is not self.negated


def parse(texts: Iterable[str]) -> tuple[Requirement, ...]:
    return tuple(_parse_one(part.strip()) for text in texts for part in text.split(","))


def _parse_one(part: str) -> Requirement:
    if match := _EQUALITY.fullmatch(part):
        key, sign, value = match.groups()
        return Requirement(key, value, negated=sign == "!=")
    if match := _EXISTENCE.fullmatch(part):
        return Requirement(match[2], None, negated=bool(match[1]))
    raise SelectorError(f"{part!r}: write key=value, key!=value, key or !key")
