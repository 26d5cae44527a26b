"""Envoy as a delta client, as far as the order of what it is told goes, and waypoints to tell it.

Like Envoy 1.40 it asks for endpoints of the clusters that it has and for routes of its scopes,
gives names back when what had them is gone, and acknowledges clusters once they are warm. A
route's message is the clusters that it names, the others are revisions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from control.model.identity import SpiffeId
from control.model.route import Backend, Front, Layer, Spoken, WaypointDelta, WaypointKey
from control.server.xds.cache import Change
from control.server.xds.racks import Encoded, Racks
from control.server.xds.session import DeltaSession
from control.server.xds.waypoint_view import WaypointView
from control.wire import discovery_pb2 as pb
from control.wire.types import (
    CLUSTER_TYPE,
    ENDPOINT_TYPE,
    KINDS_OF_ENVOY,
    LISTENER_TYPE,
    ROUTE_TYPE,
    SCOPE_TYPE,
)

KEY, OTHER = WaypointKey("shop", "waypoint"), WaypointKey("shop", "other")
ASKED_BY = {CLUSTER_TYPE: ENDPOINT_TYPE, SCOPE_TYPE: ROUTE_TYPE}


def account(key: WaypointKey = KEY) -> SpiffeId:
    return SpiffeId("cluster.local", key.namespace, key.name)


def backend(name: str, revision: str = "") -> Backend:
    return Backend(name, revision, Spoken.HTTP1)


def front(name: str, *backends: str) -> Front:
    return Front(name, "", "", (), 80, Layer.HTTP, " ".join(backends))


class PlainEncoder:
    """Resources that say what they name."""

    def __init__(self) -> None:
        self.told_listener = False

    def __call__(self, delta: WaypointDelta) -> Encoded:
        made: dict[str, dict[str, bytes | None]] = {url: {} for url in KINDS_OF_ENVOY}
        if not self.told_listener:
            self.told_listener, made[LISTENER_TYPE]["connect"] = True, b"l"
        for name, backend in delta.backends.items():
            made[CLUSTER_TYPE][name] = None if backend is None else b"c"
            made[ENDPOINT_TYPE][name] = None if backend is None else backend.service.encode()
        for name, front in delta.fronts.items():
            made[SCOPE_TYPE][name] = None if front is None else name.encode()
            made[ROUTE_TYPE][name] = None if front is None else _named(front).encode()
        return made


def _named(front: Front) -> str:
    """Backends that it names."""
    if front.rules is None:
        return front.backend
    return " ".join(each.backend for rule in front.rules for each in rule.destinations)


class World:
    """Racks, and the delta between two states of one waypoint."""

    def __init__(self) -> None:
        self.racks = Racks(PlainEncoder)
        self.revision = 0
        self._shown: dict[WaypointKey, tuple[dict[str, Backend], dict[str, Front]]] = {}

    def show(
        self, backends: dict[str, Backend], fronts: dict[str, Front], key: WaypointKey = KEY
    ) -> Mapping[WaypointKey, Change]:
        before = self._shown.get(key, ({}, {}))
        self._shown[key] = backends, fronts
        return self.apply(
            WaypointDelta(
                key,
                account(key),
                _difference(before[1], fronts),
                _difference(before[0], backends),
            )
        )

    def remove(self, key: WaypointKey = KEY) -> Mapping[WaypointKey, Change]:
        self._shown.pop(key, None)
        return self.apply(WaypointDelta(key, account(key), is_gone=True))

    def apply(self, *deltas: WaypointDelta) -> Mapping[WaypointKey, Change]:
        for _ in self.racks.steps(deltas):
            pass
        self.revision += 1
        return finish(self.racks.commit(self.revision))

    def wanted(self, key: WaypointKey = KEY) -> dict[str, dict[str, str]]:
        shelves = self.racks.rack(key).shelves
        return {
            url: {name: each.version for name, each in shelf.entries.items()}
            for url, shelf in shelves.items()
        }


def finish(steps: Iterator[None]) -> Mapping[WaypointKey, Change]:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            found: Mapping[WaypointKey, Change] = end.value
            return found


def _difference(before: Mapping[str, object], after: Mapping[str, object]) -> dict[str, object]:
    gone = dict.fromkeys(before.keys() - after.keys())
    return {**gone, **{name: each for name, each in after.items() if before.get(name) != each}}


class ModelEnvoy:
    """`broken` are the rules that were broken by what it was told."""

    def __init__(self, world: World, key: WaypointKey = KEY, response_bytes_max: int = 300) -> None:
        self.world, self.key = world, key
        self.response_bytes_max = response_bytes_max
        self.held: dict[str, dict[str, str]] = {url: {} for url in KINDS_OF_ENVOY}
        self.bodies: dict[tuple[str, str], bytes] = {}
        self.unknown: dict[str, set[str]] = {url: set() for url in KINDS_OF_ENVOY}
        self.asked: dict[str, set[str]] = {ENDPOINT_TYPE: set(), ROUTE_TYPE: set()}
        self.broken: list[str] = []
        self.refuses: set[str] = set()  # names; with one, it takes nothing of a response
        self.told: list[tuple[str, tuple[str, ...], tuple[str, ...]]] = []
        self.connect()

    def connect(self) -> None:
        """A new stream: it names what it asks for, and the versions that it has of that."""
        rack = self.world.racks.rack(self.key)
        self.session = DeltaSession(WaypointView(rack, self.response_bytes_max))
        self._requests: list[pb.DeltaDiscoveryRequest] = []
        self._unwarm: dict[str, str] = {}  # nonce and cluster response that is not warm yet
        self._opened: set[str] = set()
        for url in (CLUSTER_TYPE, LISTENER_TYPE, SCOPE_TYPE, ENDPOINT_TYPE, ROUTE_TYPE):
            names = self.asked.get(url)
            if names is None or names:
                self._send(url, names or set(), set())

    def _send(self, url: str, asked: set[str], returned: set[str], nonce: str = "") -> None:
        versions = {} if url in self._opened else self.held[url]
        self._opened.add(url)
        self._requests.append(
            pb.DeltaDiscoveryRequest(
                type_url=url,
                resource_names_subscribe=sorted(asked),
                resource_names_unsubscribe=sorted(returned),
                initial_resource_versions=versions,
                response_nonce=nonce,
            )
        )

    def tell(self) -> bool:
        """One of its requests arrives."""
        if not self._requests:
            return False
        self.session.receive(self._requests.pop(0))
        return True

    def hear(self, nack: str = "") -> bool:
        """One response arrives."""
        response = self.session.take()
        if response is None:
            return False
        message = pb.DeltaDiscoveryResponse.FromString(response.data)
        added = tuple(each.name for each in message.resources)
        self.told.append((message.type_url, added, tuple(message.removed_resources)))
        refused = sorted(set(added) & self.refuses)
        if refused:
            nack = f"cannot read {refused[0]}"
        if nack:
            self._send(message.type_url, set(), set(), message.nonce)
            self._requests[-1].error_detail.message = nack
            return True
        self._apply(message)
        self._follow(message.type_url)
        if message.type_url == CLUSTER_TYPE:
            self._unwarm[message.nonce] = CLUSTER_TYPE
        else:
            self._send(message.type_url, set(), set(), message.nonce)
        self._warm()
        return True

    def _apply(self, message: pb.DeltaDiscoveryResponse) -> None:
        url = message.type_url
        for each in message.resources:
            if each.name not in self.asked.get(url, (each.name,)):
                continue  # given back meanwhile
            self.held[url][each.name] = each.version
            self.bodies[url, each.name] = each.resource.value
            self.unknown[url].discard(each.name)
            if url == ROUTE_TYPE:
                cold = set(self.bodies[url, each.name].decode().split()) - self._ready()
                self.broken += [f"route {each.name} names {name}" for name in sorted(cold)]
        for name in message.removed_resources:
            if self.held[url].pop(name, None) is None and url in self.asked:
                self.unknown[url].add(name)
            if url == CLUSTER_TYPE:
                self.broken += [
                    f"cluster {name} went before route {route}"
                    for route in self.held[ROUTE_TYPE]
                    if name in self.bodies[ROUTE_TYPE, route].decode().split()
                ]

    def _ready(self) -> set[str]:
        """Clusters that are warm."""
        return self.held[CLUSTER_TYPE].keys() & self.held[ENDPOINT_TYPE].keys()

    def _follow(self, url: str) -> None:
        """Ask by name for what belongs to what it has by now."""
        by_name = ASKED_BY.get(url)
        if by_name is None:
            return
        wanted, asked = set(self.held[url]), self.asked[by_name]
        fresh, returned = wanted - asked, asked - wanted
        if fresh or returned:
            self.asked[by_name] = wanted
            self._send(by_name, fresh, returned)
        for name in returned:
            self.held[by_name].pop(name, None)
            self.unknown[by_name].discard(name)

    def _warm(self) -> None:
        """Clusters are acknowledged once each has its endpoints, or word that it has none."""
        answered = self.held[ENDPOINT_TYPE].keys() | self.unknown[ENDPOINT_TYPE]
        if self.held[CLUSTER_TYPE].keys() <= answered:
            for nonce in self._unwarm:
                self._send(CLUSTER_TYPE, set(), set(), nonce)
            self._unwarm = {}

    def settle(self) -> None:
        while self.tell() or self.hear():
            pass

    def wrong(self) -> list[str]:
        """Names that it holds other than it should."""
        wanted = self.world.wanted(self.key)
        for url, names in self.asked.items():
            wanted[url] = {name: each for name, each in wanted[url].items() if name in names}
        return [
            f"{url} {name}"
            for url in KINDS_OF_ENVOY
            for name in wanted[url].keys() | self.held[url].keys()
            if wanted[url].get(name) != self.held[url].get(name)
        ]
