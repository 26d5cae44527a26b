"""PeerAuthentication → DENY policies: cases 61 to 78, as decisions and as names on workloads."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from control.model.address import parse_address
from control.model.identity import SpiffeId
from control.model.policy import Connection, Permit, decide
from control.server.compile.mesh import CompiledMesh, compile_mesh
from control.server.compile.settings import Settings
from tests.support import manifests
from tests.support.manifests import load, pod, policy

STATIC = "istio-system/istio_converted_static_strict"
CONVERTED = "shop/converted_peer_authentication_p"
POD = pod("web", labels="app: web")
SELECT = "selector: {matchLabels: {app: web}}"
NOBODY = Connection(None, parse_address("10.0.0.1"), parse_address("10.1.0.1"), 1)
SOMEBODY = replace(NOBODY, source=SpiffeId("cluster.local", "a", "b"))


def peer(spec: str, **meta: str) -> str:
    return policy("{" + spec + "}", kind="PeerAuthentication", **meta)


def mode(name: str) -> str:
    return f"mtls: {{mode: {name}}}"


def port(number: int, name: str) -> str:
    return f"portLevelMtls: {{{number}: {{mode: {name}}}}}"


def mesh_wide(name: str) -> str:
    return peer(mode(name), namespace="istio-system", name="mesh")


def for_namespace(name: str) -> str:
    return peer(mode(name), name="ns")


@dataclass(frozen=True)
class Case:
    number: int
    text: str
    names: tuple[str, ...]  # on the workload
    plaintext: str  # ports of 8080, 9090, 7070 open to callers without identity


CASES = [
    Case(61, for_namespace("DISABLE"), (), "yyy"),
    Case(61, for_namespace("PERMISSIVE"), (), "yyy"),
    Case(61, for_namespace("STRICT"), (STATIC,), "nnn"),
    Case(62, peer(f"{SELECT}, {mode('STRICT')}"), (STATIC,), "nnn"),
    Case(63, mesh_wide("STRICT"), (STATIC,), "nnn"),
    Case(64, mesh_wide("STRICT") + for_namespace("PERMISSIVE"), (), "yyy"),
    Case(65, peer(f"{SELECT}, {mode('STRICT')}, {port(8080, 'STRICT')}"), (STATIC,), "nnn"),
    Case(66, peer(f"{SELECT}, {mode('STRICT')}, {port(9090, 'PERMISSIVE')}"), (CONVERTED,), "nyn"),
    Case(66, peer(f"{SELECT}, {mode('STRICT')}, {port(9090, 'DISABLE')}"), (CONVERTED,), "nyn"),
    Case(67, peer(f"{SELECT}, {mode('PERMISSIVE')}, {port(9090, 'STRICT')}"), (CONVERTED,), "yny"),
    Case(68, peer(f"{SELECT}, {mode('DISABLE')}, {port(9090, 'STRICT')}"), (CONVERTED,), "yny"),
    Case(69, mesh_wide("STRICT") + peer(f"{SELECT}, {mode('PERMISSIVE')}"), (), "yyy"),
    Case(70, peer(f"{SELECT}, {port(8080, 'STRICT')}"), (CONVERTED,), "nyy"),
    Case(
        71,
        mesh_wide("STRICT") + peer(f"{SELECT}, {port(9090, 'PERMISSIVE')}"),
        (CONVERTED,),
        "nyn",
    ),
    Case(72, mesh_wide("STRICT") + peer(f"{SELECT}, {port(9090, 'DISABLE')}"), (CONVERTED,), "nyn"),
    Case(73, mesh_wide("STRICT") + peer(f"{SELECT}, {port(9090, 'STRICT')}"), (STATIC,), "nnn"),
    Case(
        74,
        mesh_wide("PERMISSIVE")
        + for_namespace("STRICT")
        + peer(f"{SELECT}, {port(9090, 'PERMISSIVE')}"),
        (CONVERTED,),
        "nyn",
    ),
    Case(75, mesh_wide("STRICT") + for_namespace("UNSET"), (STATIC,), "nnn"),
    Case(76, mesh_wide("STRICT") + peer(f"{SELECT}, {port(9090, 'UNSET')}"), (STATIC,), "nnn"),
    Case(77, mesh_wide("PERMISSIVE") + peer(f"{SELECT}, {port(9090, 'PERMISSIVE')}"), (), "yyy"),
    Case(78, peer(f"{SELECT}, {mode('STRICT')}", namespace="istio-system"), (), "yyy"),
]


def answers(mesh: CompiledMesh) -> tuple[tuple[str, ...], str]:
    (workload,) = mesh.workloads.values()
    named = [mesh.policies[name] for name in workload.authorization_policies]
    open_ports = "".join(
        "y" if isinstance(decide(named, replace(NOBODY, destination_port=each)), Permit) else "n"
        for each in (8080, 9090, 7070)
    )
    for each in (8080, 9090, 7070):
        assert isinstance(decide(named, replace(SOMEBODY, destination_port=each)), Permit)
    return workload.authorization_policies, open_ports


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case.number))
def test_case(case: Case) -> None:
    assert answers(manifests.mesh(POD + case.text)) == (case.names, case.plaintext)


def test_nothing_is_sent_where_nobody_asked() -> None:
    assert manifests.mesh(POD).policies == {}


def test_the_oldest_of_one_scope_wins_then_the_first_by_name() -> None:
    young = peer(mode("STRICT"), name="a", creationTimestamp="2026-02-01T00:00:00Z")
    old = peer(mode("PERMISSIVE"), name="b", creationTimestamp="2026-01-01T00:00:00Z")
    assert answers(manifests.mesh(POD + young + old))[1] == "yyy"
    undated = peer(mode("STRICT"), name="aaa")
    assert answers(manifests.mesh(POD + undated + old))[1] == "yyy"
    twins = peer(mode("STRICT"), name="a") + peer(mode("PERMISSIVE"), name="b")
    mesh = manifests.mesh(POD + twins)
    assert answers(mesh)[1] == "nnn"
    assert [each.delivered for each in mesh.statuses] == [True, False]


def test_a_broken_one_is_strict_in_its_scope_even_beside_an_older() -> None:
    old = peer(mode("PERMISSIVE"), name="b", creationTimestamp="2026-01-01T00:00:00Z")
    found = load(POD + old + peer("mtls: {mode: STRIKT}", name="c"))
    mesh = compile_mesh(found.objects, Settings(), frozenset())
    assert answers(mesh)[1] == "nnn"


def test_the_root_namespace_is_a_setting() -> None:
    strict = peer(mode("STRICT"), namespace="mesh-root")
    mesh = manifests.mesh(POD + strict, root_namespace="mesh-root")
    assert answers(mesh) == (("mesh-root/istio_converted_static_strict",), "nnn")
