"""Responses that a client refused, told again in halves until what it refuses stands alone.

An Envoy that cannot read one resource refuses the whole response that has it, so a bad one of one
namespace would keep out the good ones of others that came along. It does not say which it took.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from control.server.xds.response import DeltaResponse, encode
from control.server.xds.shelf import Shelf
from control.wire import discovery_pb2 as pb
from control.wire.delta import Word


@dataclass(frozen=True, slots=True)
class RefusedPart:
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()


class Again:
    """Parts of one type that have to be told again, at most twice as many as names were refused."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._parts: deque[RefusedPart] = deque()
        self._told: DeltaResponse | None = None

    def __bool__(self) -> bool:
        return bool(self._parts)

    def tells(self, response: DeltaResponse) -> None:
        """This one is on its way."""
        self._told = response

    def taken(self) -> None:
        self._told = None

    def refused(self) -> None:
        """The last one was refused."""
        response, self._told = self._told, None
        if response is None or response.added + response.removed < 2:
            return
        message = pb.DeltaDiscoveryResponse.FromString(response.data)
        names = [each.name for each in message.resources]
        half = (len(names) + 1) // 2
        parts = [RefusedPart(tuple(names[:half])), RefusedPart(tuple(names[half:]))]
        if message.removed_resources:
            parts.insert(0, RefusedPart(removed=tuple(message.removed_resources)))
        self._parts.extendleft(reversed([each for each in parts if each.added or each.removed]))

    def take(self, nonce: str) -> DeltaResponse | None:
        """The next part, as its resources are by now; None: none is left of them."""
        entries = self._shelf.entries
        while self._parts:
            part = self._parts.popleft()
            pieces = [entries[name].framed for name in part.added if name in entries]
            removed = [name for name in part.removed if name not in entries]
            if pieces or removed:
                return encode(self._shelf.type_url, nonce, Word.MORE, pieces, removed)
        return None
