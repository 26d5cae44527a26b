"""One client's delta xDS stream as a state machine, without I/O: requests in, responses out.

Invariants. Of each type at most one response is unacknowledged; what changes meanwhile is told
after it, so a slow client never holds up another. A response is as new as the cache when it is
taken. A policy is sent before an address that may name it, and its removal after.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from control.kit.errors import WireError
from control.server.callers.refusals import CallRefusal
from control.server.xds.asking import Asking
from control.server.xds.cache import Cache, Change
from control.server.xds.difference import RESPONSE_BYTES_MAX
from control.server.xds.follower import Follower
from control.server.xds.names import BadRequest, KeptNames
from control.server.xds.picker import Picker
from control.server.xds.response import DeltaResponse
from control.server.xds.shelf import HeldVersions
from control.server.xds.subscription import Unserved
from control.wire import discovery_pb2 as pb
from control.wire.delta import NAMES_KEY, Word
from control.wire.sums import SUMS_KEY, sums_from_text
from control.wire.types import ADDRESS_TYPE, AUTHORIZATION_TYPE, NAMESPACE_TYPE, POD_TYPE

# Types that we do not serve stay open, empty: clients ask for types of later versions, a few.
FOREIGN_TYPES_MAX = 8
TYPE_CHARS_MAX = 256
WILDCARD = "*"
# Policies first. Their removals are held back until addresses are out; see `_withholds`.
ORDER = (AUTHORIZATION_TYPE, ADDRESS_TYPE, POD_TYPE, NAMESPACE_TYPE)

Way: TypeAlias = Asking | Follower | Picker | Unserved


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """Answer of a client to the response in flight; `error` is empty for an ACK."""

    type_url: str
    nonce: str
    error: str


@dataclass(slots=True)
class TypeState:
    """One type that a client has subscribed to, and in which way."""

    way: Way
    asked: set[str] = field(default_factory=set)  # names, while the way is by name or was
    in_flight: str = ""
    answered: bool = False  # the first response went out, even if empty
    acked: str = ""
    nacked: str = ""
    nacks: int = 0


class DeltaSession:
    def __init__(
        self, cache: Cache, node: str, response_bytes_max: int = RESPONSE_BYTES_MAX
    ) -> None:
        self._cache = cache
        self._response_bytes_max = response_bytes_max
        self._node = node
        self._types: dict[str, TypeState] = {}
        self._order: list[str] = []
        self._nonce = 0
        self._names = KeptNames()

    @property
    def types(self) -> dict[str, TypeState]:
        return self._types

    @property
    def names_bytes(self) -> int:
        return self._names.size_bytes

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
            self._resubscribe(state, request)
        return noted

    def _open(self, request: pb.DeltaDiscoveryRequest, held: Mapping[str, str]) -> None:
        type_url = request.type_url
        if type_url not in self._cache.types:
            self._check_foreign(type_url)
            self._add(type_url, TypeState(Unserved(type_url)))
            return
        subscribed = set(request.resource_names_subscribe)
        returned = set(request.resource_names_unsubscribe)
        wildcard = not subscribed or (WILDCARD in subscribed and WILDCARD not in returned)
        # Only addresses come on demand: half of the policies would be worse than none.
        if wildcard or type_url != ADDRESS_TYPE:
            self._add(type_url, TypeState(self._come_back(request, held)))
            return
        asked: set[str] = set()
        picker = self._pick(asked)
        picker.take_over(held)
        is_all = NAMES_KEY in request.node.metadata.fields
        picker.begin(subscribed - {WILDCARD}, returned | {WILDCARD}, is_all=is_all)
        self._add(type_url, TypeState(picker, asked))

    def _come_back(
        self, request: pb.DeltaDiscoveryRequest, held: Mapping[str, str]
    ) -> Asking | Follower:
        sums = request.node.metadata.fields.get(SUMS_KEY)
        if sums is not None:
            shelf = self._cache.shelf(request.type_url, self._node)
            return Asking(shelf, sums_from_text(sums.string_value))
        follower = self._follow(request.type_url)
        if held:
            follower.take_over(held)
        return follower

    def _follow(self, type_url: str) -> Follower:
        shelf = self._cache.shelf(type_url, self._node)
        return Follower(shelf, self._names, self._response_bytes_max)

    def _pick(self, asked: set[str]) -> Picker:
        return Picker(self._cache, self._node, self._names, asked, self._response_bytes_max)

    def _add(self, type_url: str, state: TypeState) -> None:
        self._types[type_url] = state
        self._order = [each for each in ORDER if each in self._types]
        self._order += [each for each in self._types if each not in ORDER]

    def _check_foreign(self, type_url: str) -> None:
        if len(type_url) > TYPE_CHARS_MAX:
            raise BadRequest(CallRefusal.BAD_NAME, "a type URL is too long")
        if len(self._types.keys() - self._cache.types) >= FOREIGN_TYPES_MAX:
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
        if isinstance(state.way, Asking):
            self._answer(request.type_url, state, state.way, held)
        error = ""
        if request.HasField("error_detail"):
            error = request.error_detail.message or "rejected without a reason"
            state.nacked = nonce
            state.nacks += 1
        else:
            state.acked = nonce
        return Acknowledged(request.type_url, nonce, error)

    def _answer(
        self, type_url: str, state: TypeState, asking: Asking, held: Mapping[str, str]
    ) -> None:
        """The client has said what it holds: from here on it is like any other, and is told
        something, if only that it has everything."""
        at, odd = asking.answered(held)
        asking.close()
        follower = self._follow(type_url)
        follower.start_from(at, odd, is_shared=isinstance(held, HeldVersions))
        state.way, state.answered = follower, False

    def _resubscribe(self, state: TypeState, request: pb.DeltaDiscoveryRequest) -> None:
        if request.type_url != ADDRESS_TYPE:
            return
        subscribed = set(request.resource_names_subscribe)
        returned = set(request.resource_names_unsubscribe)
        way = state.way
        if isinstance(way, Asking):
            raise WireError("another way to subscribe, before it is said what is held")
        if isinstance(way, Picker) and WILDCARD in subscribed and WILDCARD not in returned:
            state.way = self._follow(ADDRESS_TYPE)
            self._hand_over(way, state.way)
        elif isinstance(way, Follower) and WILDCARD in returned:
            state.way = self._pick(state.asked)
            self._hand_over(way, state.way)
        if isinstance(state.way, Picker):
            state.way.subscribe(subscribed - {WILDCARD}, returned)

    def _hand_over(self, old: Follower | Picker, new: Follower | Picker) -> None:
        held = dict(old.held())
        old.close()
        new.take_over(held)

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
        return min(max(waiting, default=0), self._response_bytes_max)

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
            due = state.way.due()
            with_removed = bool(due.removed) and not self._withholds(type_url)
            if due.added or with_removed or state.way.must_answer or not state.answered:
                is_question = isinstance(state.way, Asking)
                if type_url == ADDRESS_TYPE and not is_question and self._policies_wait():
                    continue
                return self._respond(state, with_removed=with_removed)
        return None

    def _withholds(self, type_url: str) -> bool:
        """Removed policies wait for the addresses that stop naming them."""
        address = self._types.get(ADDRESS_TYPE)
        if type_url != AUTHORIZATION_TYPE or address is None:
            return False
        return isinstance(address.way, Asking) or bool(address.way.due().added)

    def _policies_wait(self) -> bool:
        """New policies are there that this client was not sent: addresses must not overtake."""
        state = self._types.get(AUTHORIZATION_TYPE)
        if state is None:
            return False
        return isinstance(state.way, Asking) or bool(state.way.due().added)

    def _respond(self, state: TypeState, *, with_removed: bool) -> DeltaResponse:
        encode = state.way.take(with_removed=with_removed)
        state.answered = True
        self._nonce += 1
        # As it will be with this response applied.
        word = Word.WHOLE if self._is_whole() else Word.MORE
        response = encode(f"own-{self._nonce}", word)
        state.in_flight = response.nonce
        return response

    def _is_whole(self) -> bool:
        """True if the client's policies and addresses are those of one moment, once it has applied
        everything that was sent."""
        for type_url in (AUTHORIZATION_TYPE, ADDRESS_TYPE):
            state = self._types.get(type_url)
            if state is None or not state.answered or isinstance(state.way, Asking):
                return False
            if state.way.due():
                return False
        return True
