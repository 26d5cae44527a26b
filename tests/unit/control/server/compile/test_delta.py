"""A delta names what differs, by the names on the wire, and nothing else."""

from __future__ import annotations

from control.server.compile.delta import MeshDelta
from control.server.compile.mesh import KnownCaptures, Mesh
from control.server.compile.settings import Settings
from control.server.sources.objects import Key
from tests.support.manifests import objects, pod, policy


def test_what_differs_is_named_and_what_is_gone_is_none() -> None:
    mesh = Mesh(Settings(), KnownCaptures(frozenset()))
    both = objects(pod("a") + pod("b", address="10.1.0.2") + policy("{}")).by_key()
    first = mesh.apply(both)
    assert first.workloads.keys() == {f"Kubernetes//Pod/shop/{name}" for name in "ab"}
    assert (first.policies.keys(), first.namespaces.keys()) == ({"shop/p"}, {"shop"})
    assert mesh.apply(both) == MeshDelta()
    uid = next(uid for uid, each in mesh.pods.items() if each.name == "b")
    gone = mesh.apply({Key("Pod", "shop", "b"): None})
    assert gone == MeshDelta(workloads={"Kubernetes//Pod/shop/b": None}, pods={uid: None})
