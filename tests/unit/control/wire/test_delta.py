"""The delta xDS client: opening requests, records, refusals."""

from __future__ import annotations

import pytest
from google.protobuf.any_pb2 import Any
from hypothesis import given
from hypothesis import strategies as st

from control.kit.errors import WireError
from control.wire import delta, sums
from control.wire import discovery_pb2 as pb
from control.wire.delta import NAMES_KEY, Added, DeltaClient, NodeInfo, SubscriptionsFull, Word

ADDRESS = "type.example/Address"
POLICY = "type.example/Policy"
NODE = NodeInfo("ztunnel~10.0.0.1~z.ns~ns.svc.cluster.local", "c", {"NODE_NAME": "n1"})


def client(on_demand: tuple[str, ...] = ()) -> DeltaClient:
    return DeltaClient(NODE, [ADDRESS, POLICY], on_demand)


def response(
    nonce: str, *names: str, removed: tuple[str, ...] = (), type_url: str = ADDRESS
) -> bytes:
    resources = [
        pb.Resource(
            name=name, version="v-" + nonce, resource=Any(type_url=type_url, value=name.encode())
        )
        for name in names
    ]
    return pb.DeltaDiscoveryResponse(
        type_url=type_url, nonce=nonce, resources=resources, removed_resources=removed
    ).SerializeToString()


def test_a_first_stream_opens_every_type_as_wildcard_with_the_node() -> None:
    first, second = client().opening()
    assert (first.type_url, second.type_url) == (ADDRESS, POLICY)
    assert first.node.id == NODE.id
    assert first.node.metadata["NODE_NAME"] == "n1"
    assert not first.resource_names_subscribe
    assert not first.initial_resource_versions


def test_an_update_carries_bytes_and_an_ack_echoes_its_nonce() -> None:
    subject = client()
    update = subject.receive(response("1", "a", "b", removed=("x",)))
    assert update.added == (Added("a", "v-1", b"a"), Added("b", "v-1", b"b"))
    assert update.removed == ("x",)
    ack = subject.acknowledge(ADDRESS, "1")
    assert (ack.response_nonce, ack.HasField("error_detail")) == ("1", False)
    assert dict(subject.held(ADDRESS)) == {"a": "v-1", "b": "v-1"}


@pytest.mark.parametrize(
    ("text", "word"),
    [("tulle/whole", Word.WHOLE), ("tulle/more", Word.MORE), ("", Word.NONE), ("1.2.3", Word.NONE)],
)
def test_only_our_own_control_plane_says_how_whole_it_is(text: str, word: Word) -> None:
    message = pb.DeltaDiscoveryResponse(type_url=ADDRESS, nonce="1", system_version_info=text)
    assert client().receive(message.SerializeToString()).word is word


def test_a_rejected_resource_is_named_and_keeps_its_last_good_version() -> None:
    subject = client()
    subject.receive(response("1", "a", "b"))
    subject.acknowledge(ADDRESS, "1")
    subject.receive(response("2", "a", "b"))
    nack = subject.acknowledge(ADDRESS, "2", {"a": "bad tunnel protocol"})
    assert nack.error_detail.message == "a: bad tunnel protocol"
    assert nack.error_detail.code == delta.INVALID_ARGUMENT
    assert dict(subject.held(ADDRESS)) == {"a": "v-1", "b": "v-2"}


def test_a_reconnect_tells_what_is_held_and_forgets_old_nonces() -> None:
    subject = client()
    subject.receive(response("1", "a", "b"))
    subject.acknowledge(ADDRESS, "1")
    subject.receive(response("2", removed=("a",)))
    subject.acknowledge(ADDRESS, "2")
    subject.receive(response("3", "c"))
    assert dict(subject.opening()[0].initial_resource_versions) == {"b": "v-1"}
    assert subject.receive(response("3", "c")).nonce == "3"


def summing(identifier: str = sums.TAKES_SUMS) -> DeltaClient:
    """A client that has heard from a control plane, of two addresses."""
    subject = DeltaClient(NODE, [ADDRESS, POLICY], sums_from=2)
    message = pb.DeltaDiscoveryResponse.FromString(response("1", "a", "b"))
    message.control_plane.identifier = identifier
    subject.receive(message.SerializeToString())
    subject.acknowledge(ADDRESS, "1")
    return subject


def question(*buckets: int) -> bytes:
    return pb.DeltaDiscoveryResponse(
        type_url=ADDRESS,
        nonce="q",
        system_version_info=sums.question_to_text(buckets),
        control_plane=pb.ControlPlane(identifier=sums.TAKES_SUMS),
    ).SerializeToString()


def test_sums_of_many_stand_in_for_a_list_and_a_question_is_answered_with_what_it_asks() -> None:
    subject = summing()
    addresses, policies = subject.opening()
    assert not addresses.initial_resource_versions
    text = addresses.node.metadata[sums.SUMS_KEY]
    assert sums.sums_from_text(text) == sums.sums_of(subject.held(ADDRESS))
    assert sums.SUMS_KEY not in policies.node.metadata, "of few a list is shorter"
    update = subject.receive(question(sums.bucket_of("a")))
    assert (update.added, update.removed, update.word) == ((), (), Word.MORE)
    answer = subject.acknowledge(ADDRESS, "q")
    assert dict(answer.initial_resource_versions) == {"a": "v-1"}
    assert answer.response_nonce == "q"
    assert subject.receive(response("2", "c")).nonce == "2"


@pytest.mark.parametrize("identifier", ["", "istiod", "tulle-control"])
def test_a_control_plane_that_takes_no_sums_is_told_a_list(identifier: str) -> None:
    opening = summing(identifier).opening()[0]
    assert dict(opening.initial_resource_versions) == {"a": "v-1", "b": "v-1"}
    assert sums.SUMS_KEY not in opening.node.metadata


def test_whoever_does_not_ask_has_not_read_the_sums_and_is_told_a_list_the_next_time() -> None:
    """It would say nothing of what is gone."""
    subject = summing()
    subject.opening()
    with pytest.raises(WireError):
        subject.receive(response("1", "a"))
    assert dict(subject.held(ADDRESS)) == {"a": "v-1", "b": "v-1"}
    assert len(subject.opening()[0].initial_resource_versions) == 2


def test_a_question_about_no_sums_ends_the_stream() -> None:
    with pytest.raises(WireError):
        summing().receive(question(1))


def test_synced_needs_an_acknowledged_response_of_every_type() -> None:
    subject = client()
    subject.receive(response("1"))
    subject.acknowledge(ADDRESS, "1")
    subject.receive(response("1", type_url=POLICY))
    assert not subject.synced
    subject.acknowledge(POLICY, "1")
    assert subject.synced
    subject.opening()
    assert subject.synced


def test_on_demand_opens_with_nothing_and_reopens_with_its_names() -> None:
    subject = client(on_demand=(ADDRESS,))
    opening = subject.opening()[0]
    assert opening.resource_names_subscribe == ["*"]
    assert opening.resource_names_unsubscribe == ["*"]
    request = subject.subscribe(ADDRESS, ["ns/b", "ns/a"])
    assert request is not None
    assert request.resource_names_subscribe == ["ns/a", "ns/b"]
    assert subject.subscribe(ADDRESS, ["ns/a"]) is None
    opening, _, asking = subject.opening()
    assert opening.resource_names_subscribe == ["*"]
    assert asking.resource_names_subscribe == ["ns/a", "ns/b"], "they have no answer yet"
    subject.receive(response("1", removed=("ns/a", "ns/b")))
    subject.acknowledge(ADDRESS, "1")
    opening, _ = subject.opening()
    assert opening.resource_names_subscribe == ["*", "ns/a", "ns/b"]
    assert NAMES_KEY in opening.node.metadata.fields
    given_back = subject.unsubscribe(ADDRESS, ["ns/a", "ns/unknown"])
    assert given_back is not None
    assert given_back.resource_names_unsubscribe == ["ns/a"]


def test_subscriptions_are_bounded() -> None:
    subject = client(on_demand=(ADDRESS,))
    with pytest.raises(SubscriptionsFull):
        subject.subscribe(ADDRESS, map(str, range(delta.SUBSCRIPTIONS_MAX + 1)))


def test_a_resource_of_another_type_or_without_name_is_refused_alone() -> None:
    subject = client()
    message = pb.DeltaDiscoveryResponse.FromString(response("1", "good", "other", ""))
    message.resources[1].resource.type_url = POLICY
    update = subject.receive(message.SerializeToString())
    assert [each.name for each in update.added] == ["good"]
    nack = subject.acknowledge(ADDRESS, "1")
    assert "other: type" in nack.error_detail.message
    assert "(unnamed)" in nack.error_detail.message
    assert dict(subject.held(ADDRESS)) == {"good": "v-1"}


@pytest.mark.parametrize(
    "data",
    [b"\xff\xff\xff", response("1", type_url="type.example/Other"), response("", "a")],
    ids=["no message", "type not asked for", "no nonce"],
)
def test_a_broken_server_is_a_wire_error(data: bytes) -> None:
    with pytest.raises(WireError):
        client().receive(data)


def test_a_repeated_nonce_and_a_flood_are_wire_errors() -> None:
    subject = client()
    subject.receive(response("0"))
    with pytest.raises(WireError):
        subject.receive(response("0"))
    for number in range(1, delta.UNACKNOWLEDGED_MAX):
        subject.receive(response(str(number)))
    with pytest.raises(WireError):
        subject.receive(response("last"))


@given(st.binary(max_size=200))
def test_any_bytes_give_an_update_or_a_wire_error(data: bytes) -> None:
    try:
        client().receive(data)
    except WireError:
        pass
