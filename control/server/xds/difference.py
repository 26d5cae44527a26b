"""A difference between two states of a shelf, and the responses that tell it, encoded once.

Every stream that stands at the same state is told by the same bytes: nonce and all. A nonce has to
be new on its stream only, and a stream passes each state of each type once. It names the type,
since clients may look up what they answer by nonce alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias
from weakref import WeakValueDictionary

from control.server.xds.resource import CachedResource
from control.wire import discovery_pb2 as pb
from control.wire.delta import Word
from control.wire.sums import TAKES_SUMS, question_to_text

# Far below the 200 MiB that clients take, far above any real mesh. It is not smaller because a
# client calls itself synced after its first response: that one should be whole.
RESPONSE_BYTES_MAX = 64 * 1024 * 1024
# Larger responses are kept only while they are being sent.
KEPT_BYTES_MAX = 64 * 1024


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class DeltaResponse:
    """Held by whoever sends it."""

    data: bytes
    type_url: str
    nonce: str
    added: int
    removed: int


_Key: TypeAlias = tuple[int, Word, bool]
Encode: TypeAlias = Callable[[str, Word], DeltaResponse]  # by nonce and word


@dataclass(slots=True, eq=False)
class ShelfDifference:
    """`until`: revision of the state that it leads to. `parts`: what is added, one tuple a
    response; removed names go with the last."""

    type_url: str
    until: int
    parts: Sequence[tuple[CachedResource, ...]]
    removed: tuple[str, ...]
    size_bytes: int
    _kept: dict[_Key, DeltaResponse] = field(default_factory=dict)
    _sent: WeakValueDictionary[_Key, DeltaResponse] = field(default_factory=WeakValueDictionary)

    def __len__(self) -> int:
        return sum(map(len, self.parts)) + len(self.removed)

    def tell(
        self, part: int, nonce: str, word: Word, *, with_removed: bool, is_own: bool
    ) -> DeltaResponse:
        """The response with this part. Unless it is the client's own, everyone who asks gets the
        same bytes, with a nonce for all of them."""
        key = part, word, with_removed
        found = None if is_own else self._kept.get(key) or self._sent.get(key)
        if found is None:
            removed = self.removed if with_removed else ()
            pieces = [each.framed for each in self.parts[part]] if self.parts else []
            if not is_own:
                nonce = f"{self.type_url.rpartition('.')[2]}-{self.until}.{part}"
            found = encode(self.type_url, nonce, word, pieces, removed)
        if not is_own:
            (self._kept if len(found.data) <= KEPT_BYTES_MAX else self._sent)[key] = found
        return found


def make_difference(
    type_url: str,
    until: int,
    added: Iterable[CachedResource],
    removed: Iterable[str],
    response_bytes_max: int,
) -> ShelfDifference:
    parts: list[tuple[CachedResource, ...]] = []
    part: list[CachedResource] = []
    size_bytes = total_bytes = 0
    for each in added:
        more = len(each.framed)
        if part and size_bytes + more > response_bytes_max:
            parts.append(tuple(part))  # the rest follows the acknowledgement
            part, size_bytes = [], 0
        part.append(each)
        size_bytes += more
        total_bytes += more
    if part:
        parts.append(tuple(part))
    return ShelfDifference(type_url, until, parts, tuple(removed), total_bytes)


def encode(
    type_url: str, nonce: str, word: Word, pieces: Sequence[bytes], removed: Sequence[str]
) -> DeltaResponse:
    return _encode(type_url, nonce, word.value, pieces, removed)


def encode_question(type_url: str, buckets: Collection[int], nonce: str, _: Word) -> DeltaResponse:
    return _encode(type_url, nonce, question_to_text(buckets), (), ())


def _encode(
    type_url: str, nonce: str, info: str, pieces: Sequence[bytes], removed: Sequence[str]
) -> DeltaResponse:
    head = pb.DeltaDiscoveryResponse(
        system_version_info=info,
        type_url=type_url,
        nonce=nonce,
        removed_resources=removed,
        control_plane=pb.ControlPlane(identifier=TAKES_SUMS),
    ).SerializeToString()
    # Fields of a message may come in any order: the spliced ones follow the small ones.
    return DeltaResponse(b"".join([head, *pieces]), type_url, nonce, len(pieces), len(removed))
