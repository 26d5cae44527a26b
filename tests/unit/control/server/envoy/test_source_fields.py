from __future__ import annotations

from typing import Any

import pytest

from control.model.address import parse_address, parse_block
from control.model.policy import Match, ServiceAccountMatch, StringMatch, StringMatchKind
from control.server.envoy.source_fields import destination_holds, principals
from tests.unit.control.server.envoy.worlds import front

EXACT, PREFIX = StringMatchKind.EXACT, StringMatchKind.PREFIX
SUFFIX, PRESENCE = StringMatchKind.SUFFIX, StringMatchKind.PRESENCE
IDENTITIES = [
    f"spiffe://cluster.local/ns/{namespace}/sa/{account}"
    for namespace in ("a", "sa", "ns", "s", "n", "xns", "sax", "a.b", "ab", "axb")
    for account in ("a", "sa", "ns", "s")
]


def holds(principal: dict[str, Any], identity: str) -> bool:
    """A principal as Envoy decides it."""
    if "not_id" in principal:
        return not holds(principal["not_id"], identity)
    if "and_ids" in principal:
        return all(holds(each, identity) for each in principal["and_ids"]["ids"])
    if "or_ids" in principal:
        return any(holds(each, identity) for each in principal["or_ids"]["ids"])
    ((kind, text),) = principal["filter_state"]["string_match"].items()
    return {
        "exact": identity == text,
        "prefix": identity.startswith(text),
        "suffix": identity.endswith(text),
        "contains": text in identity,
    }[kind]


def decided(match: Match, identity: str) -> bool:
    return all(each is not None and holds(each, identity) for each in principals(match))


VALUES = ("", "a", "s", "sa", "n", "ns", "a.b", "b", "x", "a/b", "/", "sa/a", "cluster.local/ns/a/")


@pytest.mark.parametrize("kind", [EXACT, PREFIX, SUFFIX, PRESENCE])
@pytest.mark.parametrize("value", VALUES)
def test_namespaces_are_told_from_every_other_part(kind: StringMatchKind, value: str) -> None:
    text = StringMatch(kind, value)
    for identity in IDENTITIES:
        namespace = identity.split("/")[4]
        wanted = text.matches(namespace)
        assert decided(Match(namespaces=(text,)), identity) is wanted, identity
        assert decided(Match(not_namespaces=(text,)), identity) is not wanted, identity


@pytest.mark.parametrize("kind", [EXACT, PREFIX, SUFFIX, PRESENCE])
@pytest.mark.parametrize(
    "value",
    [*VALUES, "cluster.local/ns/a/sa/a", "/cluster.local/ns/a/sa/a", "spiffe://cluster.local", "l"],
)
def test_principals_are_identities_without_their_scheme(kind: StringMatchKind, value: str) -> None:
    text = StringMatch(kind, value)
    for identity in IDENTITIES:
        wanted = text.matches(identity.removeprefix("spiffe://"))
        assert decided(Match(principals=(text,)), identity) is wanted, identity
        assert decided(Match(not_principals=(text,)), identity) is not wanted, identity


def test_service_accounts() -> None:
    match = Match(service_accounts=(ServiceAccountMatch("a", "sa"),))
    found = [each for each in IDENTITIES if decided(match, each)]
    assert found == ["spiffe://cluster.local/ns/a/sa/sa"]


def test_source_addresses_are_the_tunnels() -> None:
    (one,) = principals(Match(source_ips=(parse_block("10.0.0.0/8"),)))
    assert one is not None
    assert one["filter_state"]["key"] == "envoy.filters.listener.original_dst.remote_ip"


@pytest.mark.parametrize(
    ("match", "loose", "strict"),
    [
        (Match(destination_ports=(80,)), True, True),
        (Match(destination_ports=(81,)), False, False),
        (Match(not_destination_ports=(80,)), False, False),
        (Match(destination_ips=(parse_block("10.0.0.0/8"), parse_block("fd00::/8"))), True, True),
        (Match(destination_ips=(parse_block("10.0.0.0/8"),)), False, True),
        (Match(not_destination_ips=(parse_block("10.0.0.0/8"),)), False, True),
        (Match(destination_ips=(parse_block("11.0.0.0/8"),)), False, False),
        (Match(not_destination_ips=(parse_block("::/0"), parse_block("0.0.0.0/0"))), False, False),
    ],
)
def test_a_destination_is_known_before_anybody_asks(
    match: Match, loose: bool, strict: bool
) -> None:
    made = front(addresses=(parse_address("10.0.0.1"), parse_address("fd00::1")))
    assert destination_holds(match, made, is_strict=False) is loose
    assert destination_holds(match, made, is_strict=True) is strict
