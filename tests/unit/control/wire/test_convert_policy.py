"""Policies ↔ messages: nothing is lost, and what is not understood never widens an ALLOW."""

from __future__ import annotations

import random
from functools import partial
from typing import Any

import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from control.kit.errors import WireError
from control.model.address import CidrBlock, canonical, parse_block
from control.model.policy import (
    Action,
    Clause,
    Match,
    Policy,
    PolicyScope,
    Rule,
    ServiceAccountMatch,
    StringMatch,
    StringMatchKind,
)
from control.wire import security_pb2 as pb
from control.wire.convert_policy import policy_from_wire, policy_to_wire


def some(pick: random.Random, make: Any) -> tuple[Any, ...]:
    """None, one or two of them."""
    return tuple(make(pick) for _ in range(pick.randrange(3)))


def name(pick: random.Random) -> str:
    return "".join(pick.choices("abc", k=pick.randrange(4)))


def string(pick: random.Random) -> StringMatch:
    kind = pick.choice(list(StringMatchKind))
    return StringMatch(kind) if kind is StringMatchKind.PRESENCE else StringMatch(kind, name(pick))


def account(pick: random.Random) -> ServiceAccountMatch:
    return ServiceAccountMatch(name(pick), name(pick))


def block(pick: random.Random) -> CidrBlock:
    address = canonical(pick.randbytes(pick.choice((4, 16))))
    return CidrBlock(address, pick.randint(0, 8 * len(address)))


def port(pick: random.Random) -> int:
    return pick.randint(1, 65535)


def match(pick: random.Random) -> Match:
    kinds = [string] * 4 + [account] * 2 + [block] * 4 + [port] * 2
    return Match(*(some(pick, kind) for kind in kinds))


def clause(pick: random.Random) -> Clause:
    return Clause(some(pick, match))


def rule(pick: random.Random) -> Rule:
    return Rule(some(pick, clause))


def policy(pick: random.Random) -> Policy:
    scope, action = pick.choice(list(PolicyScope)), pick.choice(list(Action))
    return Policy("p", name(pick), scope, action, some(pick, rule), pick.random() < 0.5)


@given(st.randoms(use_true_random=True))
def test_a_policy_survives_the_wire(pick: random.Random) -> None:
    value = policy(pick)
    data = policy_to_wire(value).SerializeToString()
    assert policy_from_wire(pb.Authorization.FromString(data)) == value


with_match = partial(pb.Authorization, name="p", namespace="ns")


def of(**fields: Any) -> pb.Authorization:
    """A policy with one match of these fields."""
    return with_match(rules=[{"clauses": [{"matches": [fields]}]}])


@pytest.mark.parametrize(
    "message",
    [
        pb.Authorization(namespace="ns"),
        pb.Authorization.FromString(b"\x0a\x01p\x18\x63"),  # a scope from the future
        pb.Authorization.FromString(b"\x0a\x01p\x20\x63"),  # an action from the future
        of(namespaces=[{}]),
        of(source_ips=[{"address": b"123", "length": 8}]),
        of(source_ips=[{"address": bytes(4), "length": 33}]),
        of(not_destination_ips=[{"address": bytes(16), "length": 129}]),
        of(destination_ports=[65536]),
        of(not_destination_ports=[70000]),
        of(extensions=[{"name": "of the future"}]),
    ],
)
def test_what_is_not_understood_is_an_error(message: pb.Authorization) -> None:
    with pytest.raises(WireError):
        policy_from_wire(message)


def test_a_mapped_block_is_a_block_of_ipv4() -> None:
    mapped = bytes(10) + b"\xff\xff\x0a\0\0\0"
    found = policy_from_wire(of(source_ips=[{"address": mapped, "length": 104}]))
    ((only,),) = (each.matches_any for each in found.rules[0].clauses)
    assert only.source_ips == (parse_block("10.0.0.0/8"),)


def test_a_mapped_block_wider_than_ipv4_is_an_error() -> None:
    mapped = bytes(10) + b"\xff\xff" + bytes(4)
    with pytest.raises(WireError):
        policy_from_wire(of(source_ips=[{"address": mapped, "length": 90}]))


def whole_policy() -> pb.Authorization:
    """One of each message that a policy can hold."""
    match = {
        "principals": [{"exact": "a"}],
        "namespaces": [{"presence": {}}],
        "source_ips": [{"address": b"1234", "length": 32}],
        "service_accounts": [{"namespace": "a", "serviceAccount": "b"}],
    }
    return pb.Authorization(name="p", namespace="shop", rules=[{"clauses": [{"matches": [match]}]}])


def messages_in(message: Message) -> list[Message]:
    """The message and all those inside it."""
    found = [message]
    for field, value in message.ListFields():
        if field.message_type is not None:
            for each in value if field.is_repeated else [value]:
                found += messages_in(each)
    return found


def test_the_whole_policy_is_whole() -> None:
    names = {each.DESCRIPTOR.name for each in messages_in(whole_policy())}
    known = set(pb.DESCRIPTOR.message_types_by_name) - {"Extension"}
    assert names == known | {"Empty"}
    assert policy_from_wire(whole_policy()).rules


@pytest.mark.parametrize("place", range(len(messages_in(whole_policy()))))
@pytest.mark.parametrize("field", [b"\x72\x05alice", b"\x70\x01", b"\xfa\x7f\x00"])
def test_an_unknown_field_at_any_depth_is_a_wire_error(place: int, field: bytes) -> None:
    message = whole_policy()
    messages_in(message)[place].MergeFromString(field)
    with pytest.raises(WireError, match="unknown field"):
        policy_from_wire(message)


def test_an_extension_of_a_policy_is_a_wire_error() -> None:
    message = whole_policy()
    message.extensions.add(name="new")
    with pytest.raises(WireError, match="'new'"):
        policy_from_wire(message)
