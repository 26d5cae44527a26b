"""A node's view of the mesh: policies, addresses, its own pods, namespaces.

Policies and namespaces come whole, addresses whole or on demand. A policy is sent before an address
that may name it, and its removal after.
"""

from __future__ import annotations

from collections.abc import Mapping

from control.kit.errors import WireError
from control.server.xds.asking import Asking
from control.server.xds.cache import Cache
from control.server.xds.difference import RESPONSE_BYTES_MAX
from control.server.xds.follower import Follower
from control.server.xds.names import KeptNames
from control.server.xds.picker import Picker
from control.server.xds.shelf import HeldVersions, Shelf
from control.server.xds.view import WILDCARD, States, TypeState, names_asked
from control.wire import discovery_pb2 as pb
from control.wire.delta import NAMES_KEY, Word
from control.wire.sums import SUMS_KEY, sums_from_text
from control.wire.types import ADDRESS_TYPE, AUTHORIZATION_TYPE, NAMESPACE_TYPE, POD_TYPE

# Policies first. Their removals are held back until addresses are out.
ORDER = (AUTHORIZATION_TYPE, ADDRESS_TYPE, POD_TYPE, NAMESPACE_TYPE)


class NodeView:
    order = ORDER

    def __init__(
        self, cache: Cache, node: str, response_bytes_max: int = RESPONSE_BYTES_MAX
    ) -> None:
        self._cache = cache
        self._node = node
        self.types = cache.types
        self.names = KeptNames()
        self.response_bytes_max = response_bytes_max

    def shelf(self, type_url: str) -> Shelf | None:
        return self._cache.shelf(type_url, self._node) if type_url in self.types else None

    def open(self, request: pb.DeltaDiscoveryRequest, held: Mapping[str, str]) -> TypeState:
        subscribed, returned = names_asked(request)
        wildcard = not subscribed or (WILDCARD in subscribed and WILDCARD not in returned)
        # Only addresses come on demand: half of the policies would be worse than none.
        if wildcard or request.type_url != ADDRESS_TYPE:
            return TypeState(self._come_back(request, held))
        asked: set[str] = set()
        picker = self._pick(asked)
        picker.take_over(held)
        is_all = NAMES_KEY in request.node.metadata.fields
        picker.begin(subscribed - {WILDCARD}, returned | {WILDCARD}, is_all=is_all)
        return TypeState(picker, asked)

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
        return Follower(shelf, self.names, self.response_bytes_max)

    def _pick(self, asked: set[str]) -> Picker:
        return Picker(self._cache, self._node, self.names, asked, self.response_bytes_max)

    def answered(self, type_url: str, state: TypeState, held: Mapping[str, str]) -> None:
        """A client that was asked has said what it holds: from here on it is like any other, and is
        told something, if only that it has everything."""
        asking = state.way
        if not isinstance(asking, Asking):
            return
        at, odd = asking.answered(held)
        asking.close()
        follower = self._follow(type_url)
        follower.start_from(at, odd, is_shared=isinstance(held, HeldVersions))
        state.way, state.answered = follower, False

    def resubscribe(self, state: TypeState, request: pb.DeltaDiscoveryRequest) -> None:
        if request.type_url != ADDRESS_TYPE:
            return
        subscribed, returned = names_asked(request)
        way = state.way
        if isinstance(way, Asking):
            raise WireError("another way to subscribe, before it is said what is held")
        if isinstance(way, Picker) and WILDCARD in subscribed and WILDCARD not in returned:
            state.way = self._follow(ADDRESS_TYPE)
            _hand_over(way, state.way)
        elif isinstance(way, Follower) and WILDCARD in returned:
            state.way = self._pick(state.asked)
            _hand_over(way, state.way)
        if isinstance(state.way, Picker):
            state.way.subscribe(subscribed - {WILDCARD}, returned)

    def waits(self, type_url: str, states: States) -> bool:
        """New policies that this client was not sent: addresses must not overtake them."""
        if type_url != ADDRESS_TYPE or isinstance(states[type_url].way, Asking):
            return False
        policies = states.get(AUTHORIZATION_TYPE)
        if policies is None:
            return False
        return isinstance(policies.way, Asking) or bool(policies.way.due().added)

    def withholds(self, type_url: str, states: States) -> bool:
        """Removed policies wait for the addresses that stop naming them."""
        address = states.get(ADDRESS_TYPE)
        if type_url != AUTHORIZATION_TYPE or address is None:
            return False
        return isinstance(address.way, Asking) or bool(address.way.due().added)

    def word(self, states: States) -> Word:
        """Whole, if the client's policies and addresses will be those of one moment."""
        for type_url in (AUTHORIZATION_TYPE, ADDRESS_TYPE):
            state = states.get(type_url)
            if state is None or not state.answered or isinstance(state.way, Asking):
                return Word.MORE
            if state.way.due():
                return Word.MORE
        return Word.WHOLE


def _hand_over(old: Follower | Picker, new: Follower | Picker) -> None:
    held = dict(old.held())
    old.close()
    new.take_over(held)
