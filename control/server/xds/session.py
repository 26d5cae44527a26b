"""One client's delta xDS stream as a state machine, without I/O: requests in, responses out.

Invariants. Of each type at most one response is unacknowledged; what changes meanwhile is told
after it, so a slow client never holds up another. A response is as new as the cache when it is
taken. What a client is shown, and in which order, is its view's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from control.server.callers.refusals import CallRefusal
from control.server.xds.cache import Change
from control.server.xds.names import BadRequest
from control.server.xds.response import DeltaResponse
from control.server.xds.subscription import Unserved
from control.server.xds.view import TypeState, View
from control.wire import discovery_pb2 as pb

# Types that we do not serve stay open, empty: clients ask for types of later versions, a few.
FOREIGN_TYPES_MAX = 8
TYPE_CHARS_MAX = 256


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """Answer of a client to the response in flight; `error` is empty for an ACK."""

    type_url: str
    nonce: str
    error: str


class DeltaSession:
    def __init__(self, view: View) -> None:
        self.view = view
        self._types: dict[str, TypeState] = {}
        self._order: list[str] = []
        self._nonce = 0

    @property
    def types(self) -> dict[str, TypeState]:
        return self._types

    @property
    def names_bytes(self) -> int:
        return self.view.names.size_bytes

    def receive(
        self, request: pb.DeltaDiscoveryRequest, held: Mapping[str, str] | None = None
    ) -> Acknowledged | None:
        """Take one request in. Types we do not serve are open but stay empty. `held`: its initial
        versions, if they were taken out of it. Raises WireError."""
        state = self._types.get(request.type_url)
        if state is None:
            self._open(request, dict(request.initial_resource_versions) if held is None else held)
            return None
        held = request.initial_resource_versions if held is None else held
        noted = self._acknowledge(state, request, held)
        if request.resource_names_subscribe or request.resource_names_unsubscribe:
            self.view.resubscribe(state, request)
        return noted

    def _open(self, request: pb.DeltaDiscoveryRequest, held: Mapping[str, str]) -> None:
        type_url = request.type_url
        if type_url in self.view.types:
            state = self.view.open(request, held)
        else:
            self._check_foreign(type_url)
            state = TypeState(Unserved(type_url))
        self._types[type_url] = state
        order = self.view.order
        self._order = [each for each in order if each in self._types]
        self._order += [each for each in self._types if each not in order]

    def _check_foreign(self, type_url: str) -> None:
        if len(type_url) > TYPE_CHARS_MAX:
            raise BadRequest(CallRefusal.BAD_NAME, "a type URL is too long")
        if len(self._types.keys() - self.view.types) >= FOREIGN_TYPES_MAX:
            raise BadRequest(
                CallRefusal.TOO_MANY_TYPES,
                f"over {FOREIGN_TYPES_MAX} types that we do not serve",
            )

    def _acknowledge(
        self, state: TypeState, request: pb.DeltaDiscoveryRequest, held: Mapping[str, str]
    ) -> Acknowledged | None:
        """Only the nonce in flight counts; any other is from the past and is passed over."""
        if not request.response_nonce or request.response_nonce != state.in_flight:
            return None
        nonce, state.in_flight = state.in_flight, ""
        self.view.answered(request.type_url, state, held)
        error = ""
        if request.HasField("error_detail"):
            error = request.error_detail.message or "rejected without a reason"
            state.nacked = nonce
            state.nacks += 1
            if state.again is not None:
                state.again.refused()
        else:
            state.acked = nonce
            if state.again is not None:
                state.again.taken()
        return Acknowledged(request.type_url, nonce, error)

    def changed(self, change: Change) -> bool:
        """The cache has news; True if there may be some for this client."""
        has_news = False
        for type_url in change:
            state = self._types.get(type_url)
            if state is not None:
                state.way.changed(change[type_url])
                has_news = has_news or state.way.has_news
        return has_news

    def estimate_bytes(self) -> int:
        """About the size of the next response, before anything is built."""
        waiting = (each.way.estimate_bytes() for each in self._types.values() if not each.in_flight)
        return min(max(waiting, default=0), self.view.response_bytes_max)

    @property
    def is_cheap(self) -> bool:
        """True if building a small response takes no time worth a turn."""
        return all(each.way.is_cheap for each in self._types.values())

    def take(self) -> DeltaResponse | None:
        """The next response to send, if there is one. Call until None."""
        for type_url in self._order:
            state = self._types[type_url]
            if state.in_flight:
                continue
            if state.again and (response := state.again.take(self._next_nonce())) is not None:
                return self._sends(state, response)
            due = state.way.due()
            with_removed = bool(due.removed) and not self.view.withholds(type_url, self._types)
            has_news = due.added or with_removed or state.way.must_answer or not state.answered
            if has_news and not self.view.waits(type_url, self._types):
                return self._respond(state, with_removed=with_removed)
        return None

    def _respond(self, state: TypeState, *, with_removed: bool) -> DeltaResponse:
        encode = state.way.take(with_removed=with_removed)
        state.answered = True
        # The word is as it will be with this response applied.
        return self._sends(state, encode(self._next_nonce(), self.view.word(self._types)))

    def _next_nonce(self) -> str:
        self._nonce += 1
        return f"own-{self._nonce}"

    def _sends(self, state: TypeState, response: DeltaResponse) -> DeltaResponse:
        state.in_flight = response.nonce
        if state.again is not None:
            state.again.tells(response)
        return response
