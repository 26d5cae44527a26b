"""Clients of every kind on one cache: whatever they and the mesh do, all end with the truth."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from control.model.intent import Intent
from control.server.compile.mesh import CompiledMesh
from control.server.xds.cache import Cache
from control.server.xds.node_view import NodeView
from control.server.xds.session import DeltaSession
from control.wire import discovery_pb2 as pb
from control.wire.delta import DeltaClient, Update
from control.wire.types import ADDRESS_TYPE, AUTHORIZATION_TYPE, NAMESPACE_TYPE, POD_TYPE
from tests.support.mesh_cache import MeshCache
from tests.unit.control.server.xds.session_bench import (
    KEY,
    NODE,
    make_mesh,
    policy,
    service,
    workload,
)

NODES = ("n1", "n2")
ASKED = ("/10.0.0.97", "/10.0.0.98", KEY, "c//Pod/ns/a", "/10.9.0.1", "nothing")


def make_world(rng: random.Random) -> CompiledMesh:
    pods = [
        replace(
            workload(each, rng.choice("12"), (KEY,) if rng.random() < 0.5 else ()),
            node=rng.choice(NODES),
        )
        for each in "abcd"
        if rng.random() < 0.6
    ]
    policies = tuple(policy(each) for each in "pqr" if rng.random() < 0.6)
    mesh = make_mesh(*pods, policies=policies, services=(service(),) * rng.randint(0, 1))
    intents = {
        each: Intent(each, each, "ns", "sa", rng.choice(NODES), (), rng.random() < 0.5, "r")
        for each in "uvw"
        if rng.random() < 0.7
    }
    return replace(mesh, pods=intents)


class Node:
    """A client with a stream, its answers on the way, and what a proxy would have made of it."""

    def __init__(self, cache: Cache, node: str, kind: str) -> None:
        self.cache, self.node, self.kind = cache, node, kind
        types = [POD_TYPE, NAMESPACE_TYPE] if kind == "agent" else [ADDRESS_TYPE]
        types += [AUTHORIZATION_TYPE] if kind != "agent" else []
        self.client = DeltaClient(
            NODE,
            types,
            [ADDRESS_TYPE] if kind == "picker" else [],
            sums_from=0 if kind == "summing" else 10**9,
        )
        self.asked: set[str] = set()
        self.rejected: set[tuple[str, str, str]] = set()
        self.connect()

    def connect(self) -> None:
        self.answers: list[pb.DeltaDiscoveryRequest] = []
        self.session = DeltaSession(NodeView(self.cache, self.node, response_bytes_max=300))
        self.nonces: set[str] = set()
        for request in self.client.opening():
            self.session.receive(request)

    def take(self, rng: random.Random | None) -> bool:
        response = self.session.take()
        if response is None:
            return False
        assert response.nonce not in self.nonces, "new on its stream, whatever its type"
        self.nonces.add(response.nonce)
        update = self.client.receive(response.data)
        self.answers.append(self._acknowledge(update, rng))
        return True

    def _acknowledge(self, update: Update, rng: random.Random | None) -> pb.DeltaDiscoveryRequest:
        refused = {}
        for each in update.each():
            self.rejected.discard((update.type_url, each.name, each.version))
            if rng is not None and rng.random() < 0.05:
                refused[each.name] = "no"
                self.rejected.add((update.type_url, each.name, each.version))
        return self.client.acknowledge(update.type_url, update.nonce, refused)

    def answer(self) -> None:
        if self.answers:
            self.session.receive(self.answers.pop(0))

    def ask(self, rng: random.Random) -> None:
        if self.kind != "picker":
            return
        names = rng.sample(ASKED, 2)
        ask = self.client.subscribe if rng.random() < 0.6 else self.client.unsubscribe
        request = ask(ADDRESS_TYPE, names)
        if request is not None:
            self.session.receive(request)

    def settle(self) -> None:
        while self.take(None) or self.answers:
            self.answer()

    def wrong(self) -> list[str]:
        """Names that this client holds other than it should."""
        found = []
        for url in (POD_TYPE, NAMESPACE_TYPE) if self.kind == "agent" else self._mesh_types():
            wanted = {
                name: each.version
                for name, each in self.cache.entries(url).items()
                if each.node in ("", self.node)
            }
            held = dict(self.client.held(url))
            names = wanted.keys() | held.keys()
            found += [
                f"{url} {name}"
                for name in names
                if held.get(name) != wanted.get(name)
                and not any((url, name) == each[:2] for each in self.rejected)
            ]
        return found

    def _mesh_types(self) -> tuple[str, ...]:
        return (
            (AUTHORIZATION_TYPE,) if self.kind == "picker" else (AUTHORIZATION_TYPE, ADDRESS_TYPE)
        )

    def wrong_answers(self) -> list[str]:
        """The same of a client that asks: answers to its names, and its node's own."""
        if self.kind != "picker":
            return []
        entries = self.cache.entries(ADDRESS_TYPE)
        wanted = self.cache.own(self.node)
        for name in self.session.types[ADDRESS_TYPE].asked:
            wanted.update(self.cache.resolve(name))
        held = self.client.held(ADDRESS_TYPE)
        versions = {name: entries[name].version for name in wanted}
        return [
            name
            for name in wanted | held.keys()
            if held.get(name) != versions.get(name)
            and not any((ADDRESS_TYPE, name) == each[:2] for each in self.rejected)
        ]


@pytest.mark.parametrize("seed", range(12))
def test_all_end_with_what_there_is(seed: int) -> None:
    rng = random.Random(seed)
    cache = MeshCache()
    cache.update(make_world(rng))
    kinds = ("wildcard", "summing", "summing", "picker", "agent")
    nodes = [Node(cache, node, kind) for node in NODES for kind in kinds]
    for _ in range(150):
        each = rng.choice(nodes)
        match rng.choice(("change", "take", "take", "answer", "answer", "ask", "reconnect")):
            case "change":
                change = cache.update(make_world(rng))
                for other in nodes:
                    other.session.changed(change)
            case "take":
                each.take(rng)
            case "answer":
                each.answer()
            case "ask":
                each.ask(rng)
            case "reconnect" if rng.random() < 0.3:
                each.connect()
    for each in nodes:
        each.settle()
        assert each.wrong() == [], each.kind
        assert each.wrong_answers() == [], each.kind
