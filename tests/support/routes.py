"""Manifests → compiled mesh → wire → a ztunnel's state → the route of one connection."""

from __future__ import annotations

import random
from collections import Counter

from control.model.address import parse_endpoint
from control.model.workload import Service, Workload
from control.server.compile.mesh import CompiledMesh
from tests.support.engine.meshes import entry
from ztunnel.mesh.balance import Hint
from ztunnel.mesh.entries import Entry, Op
from ztunnel.mesh.roles import Asked
from ztunnel.mesh.route import Decision, Passthrough, Refuse, ToTunnel, route
from ztunnel.mesh.state import State


def state_of(mesh: CompiledMesh, node: str = "n1", backwards: bool = False) -> State:
    """A node's state after it has heard of everything."""
    values: list[Workload | Service] = [*mesh.services.values(), *mesh.workloads.values()]
    state = State(node=node)
    entries = [entry(each) for each in mesh.policies.values()]
    state.apply([*entries, *map(entry, values[::-1] if backwards else values)])
    state.apply([Entry(Op.SNAPSHOT)])
    return state


def text(decision: Decision) -> str:
    """`hbone 10.1.0.1:80 shop/db`, `plain 10.1.0.1:80` or `refused no_service_port`."""
    match decision:
        case ToTunnel(target=target, expected=expected):
            return f"hbone {target} {expected[0].namespace}/{expected[0].service_account}"
        case Passthrough(target=target):
            return f"plain {target}"
        case Refuse(reason=reason):
            return f"refused {reason.word}"


def routes(state: State, source: str, destination: str, count: int = 1) -> Counter[str]:
    """Ways of connections from the pod `namespace/name`, with their numbers."""
    workload = state.workload(f"Kubernetes//Pod/{source}")
    assert workload is not None
    asked, rng = Asked(parse_endpoint(destination)), random.Random(1)
    return Counter(text(route(state, workload, asked, rng, Hint.NONE)) for _ in range(count))


def way(state: State, source: str, destination: str) -> str:
    """The way of all connections, if it is one."""
    (found,) = routes(state, source, destination, 20)
    return found
