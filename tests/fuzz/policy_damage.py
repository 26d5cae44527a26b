"""Damage to a policy on its way to the node: what a newer or a broken control plane might send.

A node cannot understand any of these, so none may become "allow". Each changes the bytes of one
message of `istio.security` at a place that a number chooses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from google.protobuf.message import Message

from control.wire import security_pb2 as pb

UNKNOWN_FIELD = 14  # no message here has it
_LENGTH_DELIMITED, _VARINT = 2, 0


def _unknown(number: int) -> bytes:
    """One field that nobody knows, of a wire type that the number chooses."""
    if number % 2:
        return bytes([UNKNOWN_FIELD << 3 | _VARINT, 1])
    return bytes([UNKNOWN_FIELD << 3 | _LENGTH_DELIMITED, 5]) + b"alice"


def _parts(policy: pb.Authorization) -> Iterator[Message]:
    """Every message inside, outermost first."""
    yield policy
    for rule in policy.rules:
        yield rule
        for clause in rule.clauses:
            yield clause
            for match in clause.matches:
                yield match
                yield from _values(match)


def _values(match: pb.Match) -> Iterator[Message]:
    for descriptor, values in match.ListFields():
        if descriptor.message_type is not None:
            yield from values


def unknown_field(policy: pb.Authorization, number: int) -> None:
    parts = list(_parts(policy))
    parts[number % len(parts)].MergeFromString(_unknown(number))


def extension(policy: pb.Authorization, number: int) -> None:
    matches = [each for each in _parts(policy) if isinstance(each, pb.Match)]
    chosen = [policy, *matches][number % (len(matches) + 1)]
    chosen.extensions.add(name="alice-only")


def unknown_action(policy: pb.Authorization, number: int) -> None:
    policy.MergeFromString(bytes([4 << 3 | _VARINT, 2 + number % 100]))


def bad_value(policy: pb.Authorization, number: int) -> None:
    """A value that its message allows, and that means nothing."""
    match = policy.rules.add().clauses.add().matches.add()
    match.source_ips.add(address=b"\x0a\x00\x00\x01", length=32)
    match.destination_ports.append(80)
    match.namespaces.add(exact="a")
    match number % 4:
        case 0:
            match.source_ips[0].address = b"\x0a\x00\x00"
        case 1:
            match.source_ips[0].length = 33
        case 2:
            match.destination_ports[0] = 65536 + 80
        case _:
            match.namespaces[0].Clear()


DAMAGES: tuple[Callable[[pb.Authorization, int], None], ...] = (
    unknown_field,
    unknown_field,
    extension,
    unknown_action,
    bad_value,
)


def damaged(raw: bytes, number: int) -> bytes:
    policy = pb.Authorization.FromString(raw)
    DAMAGES[number % len(DAMAGES)](policy, number // len(DAMAGES))
    return policy.SerializeToString()
