"""The parsers of the ztunnel's pure parts answer any bytes, or raise WireError."""

from __future__ import annotations

from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from control.kit.errors import WireError
from control.model.address import Address, Endpoint
from control.model.policy import Connection, Deny, Permit, decide
from control.wire import security_pb2, workload_pb2
from tests.support.engine.meshes import at, pod
from ztunnel.ipc import FrameKind, FrameParser, encode_frame
from ztunnel.mesh.entries import Entry, Op, decode_entries, encode_entries
from ztunnel.mesh.route import Passthrough, Refuse, ToTunnel, route
from ztunnel.mesh.state import State

ENTRIES = st.lists(
    st.builds(
        Entry, st.sampled_from(list(Op)), st.sampled_from(["", "a", "ns/p"]), st.binary(max_size=60)
    )
)


@given(st.lists(st.binary(max_size=64), max_size=8))
def test_frames(parts: list[bytes]) -> None:
    parser = FrameParser()
    try:
        for part in parts:
            parser.feed(part)
    except WireError:
        pass


@given(st.lists(st.tuples(st.sampled_from(list(FrameKind)), st.binary(max_size=40))), st.data())
def test_frames_survive_any_cut(frames: list[tuple[FrameKind, bytes]], data: st.DataObject) -> None:
    stream = b"".join(encode_frame(kind, payload) for kind, payload in frames)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    parser = FrameParser()
    found = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += parser.feed(stream[start:end])
    assert [(each.kind, each.payload) for each in found] == frames


@given(st.binary(max_size=200))
def test_resource_entries(payload: bytes) -> None:
    try:
        assert encode_entries(decode_entries(payload)) == payload
    except WireError:
        pass


@given(ENTRIES)
def test_a_state_takes_anything_and_denies_what_it_cannot_read(entries: list[Entry]) -> None:
    state = State(strict=True)
    state.apply([*entries, Entry(Op.SNAPSHOT)])
    client = pod("client", "10.0.0.1", namespace="ns")
    list(state.workloads())
    list(state.services())
    connection = Connection(None, at("10.0.0.1"), at("10.0.0.2"), 80)
    assert isinstance(decide(state.policies_for(client), connection), Permit | Deny)


ADDRESSES = st.sampled_from([at("10.0.0.2"), at("fd00::2"), b"", b"\x00" * 5])


@st.composite
def workloads(draw: st.DrawFn) -> Entry:
    message = workload_pb2.Address()
    workload = message.workload
    workload.uid = draw(st.sampled_from(["a", "b"]))
    workload.addresses.extend(draw(st.lists(ADDRESSES, max_size=3)))
    workload.tunnel_protocol = draw(st.integers(0, 3))
    workload.status = draw(st.integers(0, 3))
    workload.network_mode = draw(st.integers(0, 3))
    workload.capacity.value = draw(st.integers(0, 2**32 - 1))
    workload.services["ns/web"].ports.add(
        service_port=draw(st.integers(0, 70000)), target_port=draw(st.integers(0, 70000))
    )
    if draw(st.booleans()):
        workload.waypoint.hbone_mtls_port = draw(st.integers(0, 2**32 - 1))
    return Entry(Op.ADDRESS, workload.uid, message.SerializeToString())


@st.composite
def services(draw: st.DrawFn) -> Entry:
    message = workload_pb2.Address()
    service = message.service
    service.namespace, service.hostname = "ns", "web"
    vip = service.addresses.add(address=draw(ADDRESSES))
    if draw(st.booleans()):
        vip.length = draw(st.integers(0, 200))
    service.ports.add(service_port=80, target_port=draw(st.sampled_from([0, 80, 65536])))
    service.ip_families = draw(st.integers(0, 5))
    service.load_balancing.mode = draw(st.integers(0, 5))
    service.load_balancing.routing_preference.extend(draw(st.lists(st.integers(0, 8), max_size=3)))
    return Entry(Op.ADDRESS, "ns/web", message.SerializeToString())


@given(
    st.lists(st.one_of(workloads(), services()), max_size=6),
    st.sampled_from([at("10.0.0.2"), at("fd00::2"), at("10.0.0.9")]),
    st.randoms(use_true_random=False),
    st.booleans(),
)
def test_every_mesh_has_a_route_to_somewhere_or_nowhere(
    entries: list[Entry], address: Address, rng: object, strict: bool
) -> None:
    state = State(strict=strict)
    state.apply([*entries, Entry(Op.SNAPSHOT)])
    client = pod("client", "10.0.0.1", namespace="ns")
    decision = route(state, client, Endpoint(address, 80), rng)  # type: ignore[arg-type]
    assert isinstance(decision, ToTunnel | Passthrough | Refuse)
    if isinstance(decision, ToTunnel):
        assert decision.expected
        assert 0 < decision.dial.port < 65536


@given(st.binary(max_size=80))
def test_an_unreadable_policy_never_opens(raw: bytes) -> None:
    """A policy of any bytes lets nobody in who would not get in without it."""
    state = State()
    state.apply([Entry(Op.POLICY, "ns/p", raw), Entry(Op.SNAPSHOT)])
    if not state.take_rejected():
        return
    web = pod("web", namespace="ns", authorization_policies=("ns/p",))
    connection = Connection(None, at("10.0.0.1"), at("10.0.0.2"), 80)
    verdict = decide(state.policies_for(web), connection)
    try:
        dry_run = security_pb2.Authorization.FromString(raw).dry_run
    except DecodeError:
        dry_run = False
    assert isinstance(verdict, Deny) or dry_run
