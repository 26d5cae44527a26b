"""A client that came back with sums, until it has named what it holds where they differ.

It is asked always, even about nothing: that is how it knows that its sums were read. Outside of
what it is asked about it holds the shelf as it was at the question's revision, whatever changes
until it answers.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import ClassVar

from control.server.xds.response import Encode, encode_question
from control.server.xds.shelf import Odd, Shelf, ShelfPlace
from control.server.xds.subscription import NOTHING, Due
from control.wire.sums import ALL_BUCKETS, BUCKETS

# If more than these differ, all that the client holds is asked for: one list of many nodes.
ASKED_MAX = BUCKETS // 2


class Asking(ShelfPlace):
    """`asked`: the buckets that differ."""

    __slots__ = ("_is_told", "_shelf", "asked")

    wildcard: ClassVar[bool] = True
    held_count: ClassVar[int] = 0  # not known yet
    pending_count: ClassVar[int] = 0
    has_news: ClassVar[bool] = False
    is_cheap: ClassVar[bool] = True

    def __init__(self, shelf: Shelf, sums: Sequence[bytes]) -> None:
        super().__init__(at=shelf.latest)
        differing = shelf.buckets.differing(sums)
        self.asked = differing if len(differing) <= ASKED_MAX else ALL_BUCKETS
        self._shelf = shelf
        self._is_told = False
        shelf.places.add(self)

    def answered(self, held: Mapping[str, str]) -> tuple[int, Odd]:
        """Place of a client that holds this in the buckets it was asked about."""
        if self.asked == ALL_BUCKETS:
            return self._shelf.place_of(held)
        return self._shelf.place_among(held, self.asked, self.at)

    @property
    def must_answer(self) -> bool:
        return not self._is_told

    def due(self) -> Due:
        return NOTHING

    def changed(self, names: Collection[str]) -> None:
        pass  # the shelf's log says it

    def estimate_bytes(self) -> int:
        return 0

    def take(self, *, with_removed: bool) -> Encode:
        self._is_told = True
        return partial(encode_question, self._shelf.type_url, self.asked)

    def close(self) -> None:
        self._shelf.places.discard(self)
