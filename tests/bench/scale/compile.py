"""CPU of one change in the control plane, compiled and encoded, by kind and by size of the mesh.

    python -m tests.bench.scale.compile 2000,10000,50000

In one process, without source and streams. Beside it a crowd: 10,000 pods and 1,000 policies in one
namespace, compiled from nothing.
"""

from __future__ import annotations

import gc
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from control.kit.memory import spare_collector
from control.server.compile.mesh import KnownCaptures, Mesh
from control.server.compile.settings import Settings
from control.server.sources.folder import Folder
from control.server.sources.objects import AnyObject, Key
from control.server.xds.cache import Cache
from tests.bench.scale.mesh import LargeMesh, Manifest, policy, text
from tests.bench.scale.outcome import ScaleFigure, exponent

CHANGES = 40
CROWD_PODS, CROWD_POLICIES = 10_000, 1_000
World = Mapping[Key, AnyObject]
Changed = dict[Key, AnyObject | None]


def world_of(manifests: Iterator[Manifest]) -> dict[Key, AnyObject]:
    folder = Folder()
    folder.load("all.yaml", text(manifests).encode())
    return folder.snapshot().objects.by_key()


def large(pods: int) -> Iterator[Manifest]:
    mesh = LargeMesh(pods, 500)
    yield from mesh.manifests()
    for number in range(mesh.services):
        yield _slice(mesh, number)


def _slice(mesh: LargeMesh, number: int) -> Manifest:
    pods = [mesh.pod(each) for each in range(10 * number, min(mesh.pods, 10 * number + 10))]
    metas = [each["metadata"] for each in pods]
    namespace = metas[0]["namespace"]
    ends: list[Manifest] = [
        {
            "addresses": [each["status"]["podIPs"][0]["ip"]],
            "targetRef": {"kind": "Pod", "name": each["metadata"]["name"], "namespace": namespace},
        }
        for each in pods
    ]
    labels = {"kubernetes.io/service-name": f"app-{number}"}
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": f"app-{number}-s", "namespace": namespace, "labels": labels},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080}],
        "endpoints": ends,
    }


def crowd(pods: int, policies: int) -> Iterator[Manifest]:
    mesh = LargeMesh(pods, 500)
    for number in range(pods):
        found = mesh.pod(number)
        found["metadata"]["namespace"] = "ns-0"
        yield found
    for number in range(policies):
        yield policy(f"p-{number}", "ns-0", f"app-{number}", "cluster.local/ns/ns-0/sa/nobody")


def _other(value: Any, number: int) -> AnyObject:
    """The object with a change that somebody has to hear of."""
    if value.meta.key.kind == "Pod":
        changed: AnyObject = replace(value, ready=number % 2 == 1)
    elif value.meta.key.kind == "Service":
        changed = replace(value, ports=(replace(value.ports[0], target=9000 + number),))
    elif value.meta.key.kind == "EndpointSlice":
        first = replace(value.endpoints[0], ready=number % 2 == 1)
        changed = replace(value, endpoints=(first, *value.endpoints[1:]))
    elif value.meta.key.kind == "AuthorizationPolicy":
        changed = replace(value, selector={"app": f"app-{number}"})
    else:
        changed = replace(value, meta=replace(value.meta, labels={"zone": str(number)}))
    return changed


KINDS = ("Pod", "Service", "EndpointSlice", "AuthorizationPolicy", "Namespace")
WAYS: Mapping[str, Callable[[AnyObject, int], Changed]] = {
    "changed": lambda each, number: {each.meta.key: _other(each, number)},
    "gone": lambda each, number: {each.meta.key: None},
    "new": lambda each, number: {each.meta.key: each},
}


def figures(pods: int) -> Iterator[ScaleFigure]:
    """Milliseconds of CPU, by kind and what happens to the object."""
    world = world_of(large(pods))
    mesh, cache = Mesh(Settings(), KnownCaptures(frozenset())), Cache()
    yield ScaleFigure("from nothing", pods, 0, _spent_ms(mesh, cache, world))
    gc.collect()
    gc.freeze()
    for kind in KINDS:
        some = [each for key, each in world.items() if key.kind == kind]
        some = some[:: max(1, len(some) // CHANGES)][:CHANGES]
        for way, change in WAYS.items():
            took = [_spent_ms(mesh, cache, change(each, at)) for at, each in enumerate(some)]
            yield ScaleFigure(f"{kind} {way}", pods, 0, statistics.median(took))


def from_crowd(pods: int, policies: int) -> float:
    mesh = Mesh(Settings(), KnownCaptures(frozenset()))
    return _spent_ms(mesh, Cache(), world_of(crowd(pods, policies)))


def _spent_ms(mesh: Mesh, cache: Cache, changed: Mapping[Key, AnyObject | None]) -> float:
    started_ns = time.process_time_ns()
    cache.apply(mesh.apply(changed))
    return (time.process_time_ns() - started_ns) / 1e6


def main(words: str) -> int:
    spare_collector()
    found: list[ScaleFigure] = []
    for word in words.split(","):
        found += figures(int(word))
    sizes = list(dict.fromkeys(each.pods for each in found))
    rows = [["ms of CPU", *(f"{each:,} pods" for each in sizes), "exponent"]]
    for name in dict.fromkeys(each.name for each in found):
        values = [f"{each.value:,.3f}" for each in found if each.name == name]
        grown = exponent(found, name)
        rows.append([name, *values, "" if grown is None else f"{grown:.2f}"])
    for row in rows:
        sys.stdout.write(
            "".join(each.rjust(16) if at else each.ljust(30) for at, each in enumerate(row)) + "\n"
        )
    took_ms = from_crowd(CROWD_PODS, CROWD_POLICIES)
    size = f"{CROWD_PODS:,} pods × {CROWD_POLICIES:,} policies of one namespace"
    sys.stdout.write(f"{size}, from nothing: {took_ms:,.0f} ms\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "2000,10000,50000"))
