"""A waypoint's view: what its Envoys are told, and nothing of the mesh.

    clusters ← routes ← scopes          endpoints belong to clusters
        ↑         ↑
        └── listeners

Nothing may name what Envoy does not have. So what names others waits until clusters are there:
Envoy acknowledges those once they are warm, which takes their endpoints, so these wait for nothing.
And a cluster goes once everything that named it is acknowledged: each Envoy asks for listeners and
scopes, but one that came back holds routes before it says so. Endpoints and routes are asked for
by name; Envoy gives a name back when what had it is gone, so their removals wait for that and are
seldom told.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from control.server.xds.again import Again
from control.server.xds.by_name import ByName
from control.server.xds.difference import RESPONSE_BYTES_MAX
from control.server.xds.follower import Follower
from control.server.xds.names import KeptNames
from control.server.xds.racks import Rack
from control.server.xds.shelf import Shelf
from control.server.xds.view import WILDCARD, States, TypeState, Way, names_asked
from control.wire import discovery_pb2 as pb
from control.wire.delta import Word
from control.wire.types import (
    CLUSTER_TYPE,
    ENDPOINT_TYPE,
    KINDS_OF_ENVOY,
    LISTENER_TYPE,
    ROUTE_TYPE,
    SCOPE_TYPE,
)

BY_NAME: Final = frozenset({ENDPOINT_TYPE, ROUTE_TYPE})
# Types that name those of this one: its removals wait for all of them.
NAMED_BY: Final[Mapping[str, tuple[str, ...]]] = {
    CLUSTER_TYPE: (LISTENER_TYPE, SCOPE_TYPE, ROUTE_TYPE),
    ENDPOINT_TYPE: (CLUSTER_TYPE,),
    ROUTE_TYPE: (LISTENER_TYPE, SCOPE_TYPE),
}
# Types that this one names: it waits for them.
NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    LISTENER_TYPE: (CLUSTER_TYPE,),
    SCOPE_TYPE: (CLUSTER_TYPE,),
    ROUTE_TYPE: (CLUSTER_TYPE,),
}


class WaypointView:
    types = frozenset(KINDS_OF_ENVOY)
    order = KINDS_OF_ENVOY

    def __init__(self, rack: Rack, response_bytes_max: int = RESPONSE_BYTES_MAX) -> None:
        self._rack = rack
        self.names = KeptNames()
        self.response_bytes_max = response_bytes_max

    def shelf(self, type_url: str) -> Shelf | None:
        return self._rack.shelves.get(type_url)

    def open(self, request: pb.DeltaDiscoveryRequest, held: Mapping[str, str]) -> TypeState:
        shelf = self._rack.shelves[request.type_url]
        if request.type_url not in BY_NAME:
            follower = Follower(shelf, self.names, self.response_bytes_max)
            if held:
                follower.take_over(held)
            return TypeState(follower, again=Again(shelf))
        subscribed, returned = names_asked(request)
        asked: set[str] = set()
        named = ByName(shelf, self.names, asked, self.response_bytes_max)
        named.begin(subscribed - returned - {WILDCARD}, held)
        return TypeState(named, asked, again=Again(shelf))

    def resubscribe(self, state: TypeState, request: pb.DeltaDiscoveryRequest) -> None:
        if isinstance(state.way, ByName):
            subscribed, returned = names_asked(request)
            state.way.subscribe(subscribed - {WILDCARD}, returned)

    def answered(self, type_url: str, state: TypeState, held: Mapping[str, str]) -> None:
        """Nobody is asked."""

    def waits(self, type_url: str, states: States) -> bool:
        for each in NAMES.get(type_url, ()):
            state = states.get(each)
            if state is not None and (_is_open(state) or state.way.due().added):
                return True
        endpoints = states.get(ENDPOINT_TYPE)
        return type_url == ROUTE_TYPE and endpoints is not None and _lacks(endpoints.way)

    def withholds(self, type_url: str, states: States) -> bool:
        for each in NAMED_BY.get(type_url, ()):
            state = states.get(each)
            if state is None:
                if each not in BY_NAME:
                    return True
            elif not state.answered or _is_open(state) or state.way.due():
                return True
        return False

    def word(self, states: States) -> Word:
        return Word.MORE


def _is_open(state: TypeState) -> bool:
    """True while something of it is not acknowledged, or is to be told again."""
    return bool(state.in_flight or state.again)


def _lacks(way: Way) -> bool:
    """True while endpoints came back for a cluster that was left without: it stayed warm."""
    return isinstance(way, ByName) and way.lacks
