"""Policies ↔ protobuf messages. Anything not understood is a WireError, never a wider allow."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from google.protobuf.empty_pb2 import Empty

from control.kit.errors import WireError
from control.model.address import CidrBlock, canonical
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


def policy_from_wire(message: pb.Authorization) -> Policy:
    if not message.name:
        raise WireError("a policy without name")
    _refuse_unknown(message)
    try:
        scope, action = PolicyScope(message.scope), Action(message.action)
    except ValueError as exc:
        raise WireError(f"policy {message.namespace}/{message.name}: {exc}") from exc
    return Policy(
        name=message.name,
        namespace=message.namespace,
        scope=scope,
        action=action,
        rules=tuple(_rule(each) for each in message.rules),
        dry_run=message.dry_run,
    )


def _refuse_unknown(message: pb.Authorization) -> None:
    """WireError for a field that we do not know, at any depth: one that we cannot check must
    neither widen an ALLOW nor silence a DENY."""
    known = pb.Authorization()
    known.CopyFrom(message)
    known.DiscardUnknownFields()
    if known.ByteSize() != message.ByteSize():
        raise WireError(f"policy {message.namespace}/{message.name} has an unknown field")
    _refuse_extensions(message.extensions)


def _refuse_extensions(extensions: Sequence[pb.Extension]) -> None:
    if extensions:
        raise WireError(f"unknown extension {extensions[0].name!r}")


def policy_to_wire(value: Policy) -> pb.Authorization:
    return pb.Authorization(
        name=value.name,
        namespace=value.namespace,
        scope=value.scope.name,
        action=value.action.name,
        rules=[_rule_to_wire(each) for each in value.rules],
        dry_run=value.dry_run,
    )


def _rule(message: pb.Rule) -> Rule:
    return Rule(
        tuple(Clause(tuple(_match(match) for match in each.matches)) for each in message.clauses)
    )


def _rule_to_wire(value: Rule) -> pb.Rule:
    return pb.Rule(
        clauses=[
            pb.Clause(matches=[_match_to_wire(match) for match in each.matches_any])
            for each in value.clauses
        ]
    )


def _match(message: pb.Match) -> Match:
    """Only fields that are set are visited: most are not."""
    _refuse_extensions(message.extensions)
    found = {each.name: _FIELDS[each.name](values) for each, values in message.ListFields()}
    return Match(**found)


def _match_to_wire(value: Match) -> pb.Match:
    return pb.Match(
        namespaces=_strings_to_wire(value.namespaces),
        not_namespaces=_strings_to_wire(value.not_namespaces),
        principals=_strings_to_wire(value.principals),
        not_principals=_strings_to_wire(value.not_principals),
        service_accounts=_accounts_to_wire(value.service_accounts),
        not_service_accounts=_accounts_to_wire(value.not_service_accounts),
        source_ips=_blocks_to_wire(value.source_ips),
        not_source_ips=_blocks_to_wire(value.not_source_ips),
        destination_ips=_blocks_to_wire(value.destination_ips),
        not_destination_ips=_blocks_to_wire(value.not_destination_ips),
        destination_ports=value.destination_ports,
        not_destination_ports=value.not_destination_ports,
    )


def _strings(messages: Iterable[pb.StringMatch]) -> tuple[StringMatch, ...]:
    return tuple(_string(each) for each in messages)


def _string(message: pb.StringMatch) -> StringMatch:
    match message.WhichOneof("match_type"):
        case "exact":
            return StringMatch(StringMatchKind.EXACT, message.exact)
        case "prefix":
            return StringMatch(StringMatchKind.PREFIX, message.prefix)
        case "suffix":
            return StringMatch(StringMatchKind.SUFFIX, message.suffix)
        case "presence":
            return StringMatch(StringMatchKind.PRESENCE)
        case _:
            raise WireError("a string match of unknown kind")


def _strings_to_wire(values: Iterable[StringMatch]) -> list[pb.StringMatch]:
    return [_string_to_wire(each) for each in values]


def _string_to_wire(value: StringMatch) -> pb.StringMatch:
    match value.kind:
        case StringMatchKind.EXACT:
            return pb.StringMatch(exact=value.value)
        case StringMatchKind.PREFIX:
            return pb.StringMatch(prefix=value.value)
        case StringMatchKind.SUFFIX:
            return pb.StringMatch(suffix=value.value)
        case StringMatchKind.PRESENCE:
            return pb.StringMatch(presence=Empty())


def _accounts(messages: Iterable[pb.ServiceAccountMatch]) -> tuple[ServiceAccountMatch, ...]:
    return tuple(ServiceAccountMatch(each.namespace, each.serviceAccount) for each in messages)


def _accounts_to_wire(values: Iterable[ServiceAccountMatch]) -> list[pb.ServiceAccountMatch]:
    return [
        pb.ServiceAccountMatch(namespace=each.namespace, serviceAccount=each.service_account)
        for each in values
    ]


def _blocks(messages: Iterable[pb.Address]) -> tuple[CidrBlock, ...]:
    try:
        return tuple(_block(each.address, each.length) for each in messages)
    except ValueError as exc:
        raise WireError(str(exc)) from exc


def _block(packed: bytes, length: int) -> CidrBlock:
    address = canonical(packed)
    if len(address) != len(packed):
        length -= 96  # a v4-mapped block, whose prefix was counted on 128 bits
    return CidrBlock(address, length)


def _blocks_to_wire(values: Iterable[CidrBlock]) -> list[pb.Address]:
    return [pb.Address(address=each.address, length=each.length) for each in values]


def _ports(numbers: Iterable[int]) -> tuple[int, ...]:
    ports = tuple(numbers)
    for port in ports:
        if port > 65535:
            raise WireError(f"port {port} out of range in a policy")
    return ports


_FIELDS: dict[str, Callable[[Any], Any]] = {
    "namespaces": _strings,
    "not_namespaces": _strings,
    "principals": _strings,
    "not_principals": _strings,
    "service_accounts": _accounts,
    "not_service_accounts": _accounts,
    "source_ips": _blocks,
    "not_source_ips": _blocks,
    "destination_ips": _blocks,
    "not_destination_ips": _blocks,
    "destination_ports": _ports,
    "not_destination_ports": _ports,
}
"""The repeated fields of a Match, and how their values are read."""
