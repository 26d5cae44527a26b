"""Equal values as one: the pods of a Deployment have the same labels, owner and ports.

Objects come from the same place one after the other, so a small memory of late values finds most
of them; 50,000 pods need half the room.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from functools import lru_cache
from sys import intern
from types import MappingProxyType
from typing import TypeVar

__all__ = ["intern", "shared", "shared_labels"]

_LATE_MAX = 4096
_CHARS_MAX = 1024  # longer ones are not remembered: nobody else has them

T = TypeVar("T", bound=Hashable)


def shared(value: T) -> T:
    """The value, or its equal of the same types."""
    found: T = _same(value)
    return found


def shared_labels(pairs: Iterable[tuple[str, str]]) -> Mapping[str, str]:
    found = tuple(pairs)
    if sum(len(name) + len(text) for name, text in found) > _CHARS_MAX:
        return MappingProxyType(dict(found))
    return _mapping(found)


@lru_cache(_LATE_MAX)
def _same(value: T) -> T:
    return value


@lru_cache(_LATE_MAX)
def _mapping(pairs: tuple[tuple[str, str], ...]) -> Mapping[str, str]:
    return MappingProxyType(dict(pairs))
