"""Common parts of the ways to subscribe to a type, and the way of a type that we do not serve."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from control.server.xds.response import Encode, encode


@dataclass(slots=True)
class Due:
    """Things that wait to be sent: resources or names."""

    added: Sequence[object] = ()
    removed: Sequence[object] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.removed)


NOTHING = Due()


class Unserved:
    """A type that we do not serve is open, and stays empty."""

    wildcard: ClassVar[bool] = True
    held_count: ClassVar[int] = 0
    pending_count: ClassVar[int] = 0
    must_answer: ClassVar[bool] = False
    is_cheap: ClassVar[bool] = True
    has_news: ClassVar[bool] = False

    def __init__(self, type_url: str) -> None:
        self._type_url = type_url

    def due(self) -> Due:
        return NOTHING

    def changed(self, names: Collection[str]) -> None:
        pass

    def estimate_bytes(self) -> int:
        return 0

    def take(self, *, with_removed: bool) -> Encode:
        return partial(encode, self._type_url, pieces=(), removed=())
