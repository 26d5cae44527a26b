"""The mesh as a whole: a report changes what a compilation from scratch would change."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import example, given
from hypothesis import strategies as st

from control.model.address import Address, parse_address
from control.model.workload import NetworkMode, TunnelProtocol
from control.server.compile.mesh import CompiledMesh, Mesh, state_of
from control.server.compile.pods import pod_uid
from control.server.compile.settings import Settings
from control.server.sources.objects import Objects
from tests.support.manifests import objects, pod
from tests.support.mesh_worlds import Reported


def recapture(
    found: Objects,
    before: Mapping[str, tuple[Address, ...]],
    after: Mapping[str, tuple[Address, ...]],
) -> None:
    """Report one after the other: the mesh is then as if it had known from the start."""
    reported = Reported(dict(before))
    mesh, fresh = Mesh(Settings(), reported), Mesh(Settings(), Reported(dict(after)))
    mesh.apply(found.by_key())
    fresh.apply(found.by_key())
    old, reported.pods = dict(mesh.workloads), dict(after)
    delta = mesh.apply({}, [uid for uid in {*before, *after} if before.get(uid) != after.get(uid)])
    assert state_of(mesh) == state_of(fresh)
    assert all(old.get(name) != mesh.workloads.get(name) for name in delta.workloads)


NAMES = ("a", "b", "c", "d", "host", "noted")
TEXT = (
    "".join(pod(name).replace("10.1.0.1", f"10.1.0.{at}") for at, name in enumerate(NAMES[:4]))
    + pod("host", spec="hostNetwork: true")
    + pod("noted").replace(
        "labels:", "annotations: {ambient.istio.io/redirection: enabled}, labels:"
    )
)
SERVICE = """
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.9.0.1, selector: {app: web}, ports: [{port: 80}]}
"""
FOUND = objects(TEXT + SERVICE)
UIDS = {pod_uid(each.meta): each for each in FOUND.pods}
SETS = st.frozensets(st.sampled_from(sorted(UIDS)))


@given(SETS, SETS)
def test_recapture_is_what_a_whole_compilation_finds(
    before: frozenset[str], after: frozenset[str]
) -> None:
    recapture(FOUND, dict.fromkeys(before, ()), dict.fromkeys(after, ()))


CLAIMED = "".join(
    pod(name, namespace, address=f"10.5.0.{at}").replace("labels:", f"uid: {name}{at}, labels:")
    for at in (1, 2)
    for name, namespace in ((f"a{at}", "shop"), (f"b{at}", "mine"), (f"c{at}", "mine"))
)
SLICE = """
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{port: 80}]
endpoints: [{addresses: [10.5.0.1, 10.5.0.2]}]
"""
CLAIMANTS = objects(CLAIMED)
CLAIMED_UIDS = {pod_uid(each.meta): each for each in CLAIMANTS.pods}
CLAIMED_SETS = st.frozensets(st.sampled_from(sorted(CLAIMED_UIDS)))


@given(CLAIMED_SETS, CLAIMED_SETS)
def test_pods_that_claim_one_address_change_hands_as_a_whole_compilation_finds(
    before: frozenset[str], after: frozenset[str]
) -> None:
    """A report may give an address to another pod, and with it the endpoints that a slice names
    by address."""
    found = objects(CLAIMED + SERVICE + SLICE)
    recapture(found, dict.fromkeys(before, ()), dict.fromkeys(after, ()))


# Pods without an address, and addresses that a node may report for them: free ones, and one of each
# kind that some object claims.
# One of them is enrolled: it is a workload before it has an address.
ENROLLED = "app: web, istio.io/dataplane-mode: ambient"
UNPLACED = "".join(
    pod(f"u{at}", labels=ENROLLED if at == 0 else "app: web", address="") for at in range(3)
)
CLAIMS = (
    pod("stated", address="10.6.0.1")
    + SERVICE.replace("clusterIP: 10.9.0.1", "clusterIP: 10.6.0.2, externalIPs: [10.6.0.3]")
    + SLICE.replace("10.5.0.1, 10.5.0.2", "10.6.0.4")
)
UNPLACED_TEXT = UNPLACED + CLAIMS
UNPLACED_FOUND = objects(UNPLACED_TEXT)
UNPLACED_PODS = {pod_uid(each.meta): each for each in UNPLACED_FOUND.pods if not each.addresses}
ADDRESSES = [parse_address(f"10.6.0.{at}") for at in range(1, 7)]
REPORTS = st.dictionaries(
    st.sampled_from(sorted(UNPLACED_PODS)),
    st.sampled_from(ADDRESSES).map(lambda each: (each,)) | st.just(()),
)


def placed_mesh(reported: Mapping[str, tuple[Address, ...]]) -> CompiledMesh:
    mesh = Mesh(Settings(), Reported(dict(reported)))
    mesh.apply(UNPLACED_FOUND.by_key())
    return state_of(mesh)


ONE, TWO = sorted(UNPLACED_PODS)[:2]


@given(REPORTS, REPORTS)
@example({ONE: (ADDRESSES[1],), TWO: (ADDRESSES[1],)}, {TWO: (ADDRESSES[4],)})
def test_a_report_places_pods_as_a_whole_compilation_does(
    before: dict[str, tuple[Address, ...]], after: dict[str, tuple[Address, ...]]
) -> None:
    recapture(UNPLACED_FOUND, before, after)


@given(REPORTS)
def test_no_report_takes_an_address_that_an_object_claims(
    reported: dict[str, tuple[Address, ...]],
) -> None:
    without, with_them = placed_mesh({}), placed_mesh(reported)
    before = {name: each for name, each in without.workloads.items() if each.addresses}
    for name, each in before.items():
        assert with_them.workloads[name] == each
    assert with_them.services == without.services
    claimed = {
        *(
            address
            for each in without.workloads.values()
            for address in each.addresses
            if each.network_mode is NetworkMode.STANDARD
        ),
        *map(parse_address, ("10.6.0.2", "10.6.0.3")),
    }
    new = [w for name, w in with_them.workloads.items() if name not in before and w.addresses]
    found = [address for each in new for address in each.addresses]
    # Anybody may name an address in a slice; that keeps no new pod from starting there.
    assert not claimed & set(found)
    named = parse_address("10.6.0.4")
    assert (named in found) is any(named in each for each in reported.values())
    assert len(found) == len(set(found)), "an address has one owner"
    assert all(each.tunnel_protocol is TunnelProtocol.HBONE for each in new)


def test_a_placed_pod_is_a_workload_with_its_services_and_its_intent_has_no_address() -> None:
    uid = list(UNPLACED_PODS)[1]
    found = placed_mesh({uid: (ADDRESSES[5],)})
    (name,) = found.workloads.keys() - placed_mesh({}).workloads.keys()
    assert found.workloads[name].addresses == (ADDRESSES[5],)
    assert found.pods[uid].addresses == (), "the agent knows better"
