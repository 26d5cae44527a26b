"""Foreign bytes into the control plane's parsers: a value or a known refusal, nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf.struct_pb2 import Struct, Value
from hypothesis import given, settings
from hypothesis import strategies as st

from control.kit.errors import WireError
from control.model.policy import Connection, Permit, decide
from control.server.compile.mesh import compile_mesh
from control.server.compile.settings import Settings
from control.server.sources.folder import Folder
from control.server.sources.problem import Invalid
from control.server.sources.yaml_text import read_documents
from control.server.xds.node_view import NodeView
from control.server.xds.session import DeltaSession
from control.wire import discovery_pb2 as pb
from control.wire.sums import SUMS_KEY, sums_of, sums_to_text
from control.wire.types import ADDRESS_TYPE, AUTHORIZATION_TYPE, POD_TYPE
from tests.support.mesh_cache import EMPTY, MeshCache

SEEDS = [path.read_bytes() for path in Path(__file__).parents[1].glob("vectors/istiod/*.yaml")]
POLICY = b"""apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: p, namespace: shop}
spec: {action: DENY, rules: [{from: [{source: {namespaces: [bad], ipBlocks: [10.0.0.0/8]}}]}]}
"""
ANYBODY = Connection(None, b"\x0a\x00\x00\x01", b"\x0a\x00\x00\x02", 80)  # type: ignore[arg-type]  # packed


def through(data: bytes) -> Folder:
    folder = Folder()
    folder.load("a.yaml", data)
    compile_mesh(folder.snapshot().objects, Settings(), frozenset())
    return folder


@settings(max_examples=200)
@given(st.binary(max_size=300))
def test_any_bytes_are_documents_or_invalid(data: bytes) -> None:
    try:
        read_documents(data)
    except Invalid:
        pass
    through(data)


@settings(max_examples=200)
@given(
    st.sampled_from([*SEEDS, POLICY]),
    st.integers(0, 3000),
    st.integers(0, 40),
    st.text("[]{}:,-&*!|>\n \t'\"a0\\~", max_size=6),
)
def test_a_damaged_manifest_never_crashes(seed: bytes, at: int, cut: int, extra: str) -> None:
    at %= len(seed)
    through(seed[:at] + extra.encode() + seed[at + cut :])


@settings(max_examples=300)
@given(st.integers(0, len(POLICY)), st.integers(1, 12), st.text("[]{}:, x'1", max_size=4))
def test_a_damaged_deny_that_is_still_a_policy_never_becomes_an_allow(
    at: int, cut: int, extra: str
) -> None:
    """Damage may shut out a caller that the whole policy let in; it lets in nobody new.

    A caller that the whole policy stops stays out, unless the damaged text itself lets him in.
    """
    folder = through(POLICY[:at] + extra.encode() + POLICY[at + cut :])
    snapshot = folder.snapshot()
    mesh = compile_mesh(snapshot.objects, Settings(), frozenset())
    broken = [each for each in snapshot.objects.authorization_policies if each.broken]
    delivered = {each.name for each in mesh.statuses if each.delivered}
    if any(each.meta.name in delivered for each in broken):
        assert not isinstance(decide(mesh.policies.values(), ANYBODY), Permit)


NODES = st.sampled_from(["", "AAAA", sums_to_text(sums_of({})), sums_to_text(sums_of({"a": "1"}))])
REQUESTS = st.builds(
    pb.DeltaDiscoveryRequest,
    node=NODES.map(
        lambda text: (
            pb.Node(metadata=Struct(fields={SUMS_KEY: Value(string_value=text)})) if text else None
        )
    ),
    type_url=st.sampled_from([ADDRESS_TYPE, AUTHORIZATION_TYPE, POD_TYPE, "other", ""]),
    resource_names_subscribe=st.lists(st.sampled_from(["*", "a", "/1.2.3.4", "x/y"]), max_size=3),
    resource_names_unsubscribe=st.lists(st.sampled_from(["*", "a", "x/y"]), max_size=2),
    initial_resource_versions=st.dictionaries(st.sampled_from(["a", "x/y"]), st.just("1")),
    response_nonce=st.sampled_from(["", "1", "2", "99"]),
)


@settings(max_examples=200)
@given(st.lists(REQUESTS, max_size=12))
def test_any_requests_leave_at_most_one_response_of_a_type_in_flight(
    requests: list[pb.DeltaDiscoveryRequest],
) -> None:
    cache = MeshCache()
    cache.update(EMPTY)
    session = DeltaSession(NodeView(cache, "n1"))
    unanswered: set[tuple[str, str]] = set()
    for request in requests:
        try:
            session.receive(request)
        except WireError:
            return
        unanswered.discard((request.type_url, request.response_nonce))
        for _ in range(8):
            response = session.take()
            if response is None:
                break
            pb.DeltaDiscoveryResponse.FromString(response.data)
            assert response.type_url not in {each for each, _ in unanswered}
            unanswered.add((response.type_url, response.nonce))
        else:
            pytest.fail("a client that says nothing more is still being talked to")
