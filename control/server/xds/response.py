"""One response, decided when it is made. A large one is put together in steps, once for all streams
that send it, whatever changes meanwhile: 19 MB in one go hold the loop for 30 ms."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from io import BytesIO
from typing import Final, TypeAlias

from control.kit.slices import portions
from control.wire import discovery_pb2 as pb
from control.wire.delta import Word
from control.wire.sums import TAKES_SUMS, question_to_text

# Larger responses are kept only while they are being sent.
KEPT_BYTES_MAX: Final = 64 * 1024


class DeltaResponse:
    """Held by whoever sends it."""

    __slots__ = (
        "__weakref__",
        "_data",
        "_making",
        "added",
        "nonce",
        "removed",
        "size_bytes",
        "type_url",
    )

    def __init__(
        self,
        type_url: str,
        nonce: str,
        info: str,
        pieces: Iterable[bytes],
        removed: Sequence[str],
        added: tuple[int, int],
    ) -> None:
        """`added`: number of pieces, which are resources, and their bytes."""
        self.type_url, self.nonce = type_url, nonce
        self.added, self.removed = added[0], len(removed)
        head = pb.DeltaDiscoveryResponse(
            system_version_info=info,
            type_url=type_url,
            nonce=nonce,
            removed_resources=removed,
            control_plane=pb.ControlPlane(identifier=TAKES_SUMS),
        ).SerializeToString()
        self.size_bytes = len(head) + added[1]
        self._data = b""
        self._making: Iterator[None] | None = self._make(head, pieces)

    def _make(self, head: bytes, pieces: Iterable[bytes]) -> Iterator[None]:
        # Fields of a message may come in any order: the spliced ones follow the small ones.
        made = BytesIO()
        made.write(head)
        for part in portions(pieces):
            made.write(b"".join(part))
            yield
        self._data = made.getvalue()  # its buffer, not a copy

    def steps(self) -> Iterator[None]:
        """Put it together. Several may do that by turns: whoever takes a step takes it for all."""
        while self._making is not None:
            if next(self._making, self) is self:
                self._making = None
            yield

    @property
    def data(self) -> bytes:
        """All of it; made at once as far as nobody has."""
        for _ in self.steps():
            pass
        return self._data


Encode: TypeAlias = Callable[[str, Word], DeltaResponse]  # by nonce and word


def encode(
    type_url: str, nonce: str, word: Word, pieces: Sequence[bytes], removed: Sequence[str]
) -> DeltaResponse:
    added = len(pieces), sum(map(len, pieces))
    return DeltaResponse(type_url, nonce, word.value, pieces, removed, added)


def encode_question(type_url: str, buckets: Collection[int], nonce: str, _: Word) -> DeltaResponse:
    return DeltaResponse(type_url, nonce, question_to_text(buckets), (), (), (0, 0))


def fitted(framed: Iterable[bytes], bytes_max: int) -> list[bytes]:
    """The first resources that fit into a response, one at least; the others follow its
    acknowledgement."""
    pieces: list[bytes] = []
    size_bytes = 0
    for piece in framed:
        if pieces and size_bytes + len(piece) > bytes_max:
            break
        pieces.append(piece)
        size_bytes += len(piece)
    return pieces
