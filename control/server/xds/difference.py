"""A difference between two states of a shelf, and the responses that tell it, encoded once.

Every stream that stands at the same state is told by the same bytes: nonce and all. A nonce has to
be new on its stream only, and a stream passes each state of each type once. It names the type,
since clients may look up what they answer by nonce alone.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias
from weakref import WeakValueDictionary

from control.kit.slices import portions
from control.server.xds.resource import CachedResource
from control.server.xds.response import KEPT_BYTES_MAX, DeltaResponse
from control.wire.delta import Word

# Far below the 200 MiB that clients take, far above any real mesh. It is not smaller because a
# client calls itself synced after its first response: that one should be whole.
RESPONSE_BYTES_MAX = 64 * 1024 * 1024

_Key: TypeAlias = tuple[int, Word, bool]


@dataclass(slots=True, eq=False)
class ShelfDifference:
    """`until`: revision of the state that it leads to. `parts`: what is added, one tuple a
    response, with their `sizes` in bytes; removed names go with the last."""

    type_url: str
    until: int
    parts: Sequence[tuple[CachedResource, ...]]
    sizes: Sequence[int]
    removed: tuple[str, ...]
    _kept: dict[_Key, DeltaResponse] = field(default_factory=dict)
    _sent: WeakValueDictionary[_Key, DeltaResponse] = field(default_factory=WeakValueDictionary)

    def __len__(self) -> int:
        return sum(map(len, self.parts)) + len(self.removed)

    @property
    def size_bytes(self) -> int:
        return sum(self.sizes)

    def tell(
        self, part: int, nonce: str, word: Word, *, with_removed: bool, is_own: bool
    ) -> DeltaResponse:
        """The response with this part. Unless it is the client's own, everyone who asks gets the
        same bytes, with a nonce for all of them."""
        key = part, word, with_removed
        found = None if is_own else self._kept.get(key) or self._sent.get(key)
        if found is None:
            removed = self.removed if with_removed else ()
            added, size_bytes = (self.parts[part], self.sizes[part]) if self.parts else ((), 0)
            if not is_own:
                nonce = f"{self.type_url.rpartition('.')[2]}-{self.until}.{part}"
            pieces = (each.framed for each in added)
            found = DeltaResponse(
                self.type_url, nonce, word.value, pieces, removed, (len(added), size_bytes)
            )
        if not is_own:
            (self._kept if found.size_bytes <= KEPT_BYTES_MAX else self._sent)[key] = found
        return found


def difference_steps(
    type_url: str,
    until: int,
    added: Iterable[CachedResource],
    removed: Iterable[str],
    response_bytes_max: int,
) -> Generator[None, None, ShelfDifference]:
    parts: list[tuple[CachedResource, ...]] = []
    sizes: list[int] = []
    part: list[CachedResource] = []
    size_bytes = 0
    for some in portions(added):
        for each in some:
            more = len(each.framed)
            if part and size_bytes + more > response_bytes_max:
                parts.append(tuple(part))  # the rest follows the acknowledgement
                sizes.append(size_bytes)
                part, size_bytes = [], 0
            part.append(each)
            size_bytes += more
        yield
    if part:
        parts.append(tuple(part))
        sizes.append(size_bytes)
    return ShelfDifference(type_url, until, parts, sizes, tuple(removed))
