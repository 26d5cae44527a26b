"""Policies that can match nobody are in force as they are written, and say so."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control.model.address import parse_address, parse_block
from control.model.identity import SpiffeId
from control.model.policy import Connection, Match, ServiceAccountMatch
from control.server.compile.mesh import KnownCaptures, Mesh
from control.server.compile.policies import NOTES_MAX, string_match
from control.server.compile.settings import Settings
from control.server.compile.unmatched import can_match, unmatched
from tests.support.manifests import mesh, objects, policy

DOMAIN = "cluster.local"
ID = f"{DOMAIN}/ns/shop/sa/web"


def source(**fields: list[str]) -> str:
    inside = ", ".join(f"{key}: {value!r}" for key, value in fields.items())
    return f"from: [{{source: {{{inside}}}}}]"


def when(key: str, *values: str) -> str:
    return f"when: [{{key: {key}, values: {list(values)!r}}}]"


# One rule that can never match, and words of its note.
NEVER = {
    "a scheme": (source(principals=[f"spiffe://{ID}"]), "without spiffe://"),
    "a scheme and a star": (source(principals=["spiffe://*"]), "without spiffe://"),
    "an inner star": (source(principals=[f"{DOMAIN}/ns/*/sa/web"]), "a * stands at"),
    "two stars": (source(principals=["**"]), "a * stands at"),
    "stars around": (source(principals=["*/ns/shop/*"]), "a * stands at"),
    "a capital": (source(principals=[f"{DOMAIN}/ns/Shop/sa/web"]), "no capitals"),
    "a space": (source(principals=[f" {ID}"]), "no spaces"),
    "a space inside": (source(principals=[f"{DOMAIN}/ns/shop /sa/web"]), "no spaces"),
    "another trust domain": (source(principals=["other/ns/shop/sa/web"]), "trust domain is"),
    "another trust domain's all": (source(principals=["other/*"]), "trust domain is"),
    "an account": (source(principals=["shop/web"]), "the trust domain is"),
    "a word": (source(principals=["web"]), "TRUST-DOMAIN/ns/"),
    "parts in disorder": (source(principals=[f"{DOMAIN}/sa/web/ns/shop"]), "TRUST-DOMAIN/ns/"),
    "too many parts": (source(principals=[f"{ID}/x"]), "TRUST-DOMAIN/ns/"),
    "an end of nothing": (source(principals=["*/sa/"]), "TRUST-DOMAIN/ns/"),
    "an underscore": (source(namespaces=["my_shop"]), "DNS label"),
    "a namespace with a dot": (source(namespaces=["shop.prod"]), "DNS label"),
    "a long namespace": (source(namespaces=["a" * 64]), "DNS label"),
    "a namespace in capitals": (source(namespaces=["SHOP"]), "no capitals"),
    "a beginning in capitals": (source(namespaces=["Shop*"]), "no capitals"),
    "an account in capitals": (source(serviceAccounts=["shop/Web"]), "no capitals"),
    "an account with a space": (source(serviceAccounts=["shop/we b"]), "no spaces"),
    "an account of no namespace": (source(serviceAccounts=["my_shop/web"]), "DNS names"),
    "nobody's address": (source(ipBlocks=["0.0.0.0"]), "no connection of a pod"),
    "loopback": (source(ipBlocks=["127.0.0.0/8"]), "no connection of a pod"),
    "multicast": (source(ipBlocks=["224.0.0.1", "ff02::1", "239.0.0.0/8"]), "no connection"),
    "nobody's IPv6 address": (source(ipBlocks=["::"]), "no connection of a pod"),
    "the tunnel's port": ("to: [{operation: {ports: ['15008']}}]", "the tunnel's own"),
    "when: a scheme": (when("source.principal", f"spiffe://{ID}"), "without spiffe://"),
    "when: a capital": (when("source.namespace", "Shop"), "no capitals"),
    "when: an account": (when("source.serviceAccount", "Shop/web"), "no capitals"),
    "when: an address": (when("source.ip", "255.255.255.255"), "no connection of a pod"),
    "when: a destination": (when("destination.ip", "127.0.0.1"), "no connection of a pod"),
    "when: a port": (when("destination.port", "15008"), "the tunnel's own"),
    "excluded namespaces": (
        source(namespaces=["shop", "shop-*"], notNamespaces=["shop*"]),
        "the rule never matches",
    ),
    "an excluded principal": (source(principals=[ID], notPrincipals=["*/web"]), "never matches"),
    "a principal elsewhere": (source(principals=[ID], namespaces=["db"]), "never matches"),
    "a principal's namespace excluded": (
        source(principals=[ID], notNamespaces=["*"]),
        "never matches",
    ),
    "an excluded block": (
        source(ipBlocks=["10.1.0.0/16"], notIpBlocks=["10.0.0.0/8"]),
        "never matches",
    ),
    "an excluded port": ("to: [{operation: {ports: ['80'], notPorts: ['80']}}]", "never matches"),
}


@pytest.mark.parametrize("name", NEVER)
def test_a_rule_that_can_match_nobody_says_so_and_its_effect(name: str) -> None:
    rule, words = NEVER[name]
    for action, effect in (("ALLOW", "everything in its scope is denied"), ("DENY", "no effect")):
        found = mesh(policy(f"{{action: {action}, rules: [{{{rule}}}]}}"))
        told = [each.message for each in found.notes]
        assert any(words in each for each in told), told
        assert any("rules[0]: the rule never matches" in each for each in told), told
        assert effect in told[-1]
        assert {each.reason for each in found.notes} == {"Unmatched"}
        assert {each.object for each in found.notes} == {"AuthorizationPolicy shop/p"}
        assert list(found.policies) == ["shop/p"], "it is in force all the same"


# A rule that excludes whom it cannot, or names one that cannot be among others that can.
PARTLY = {
    "notPrincipals": source(notPrincipals=[f"spiffe://{ID}"]),
    "notNamespaces": source(notNamespaces=["Shop"]),
    "notServiceAccounts": source(notServiceAccounts=["Shop/web"]),
    "notIpBlocks": source(notIpBlocks=["0.0.0.0"]),
    "notPorts": "to: [{operation: {notPorts: ['15008']}}]",
    "one of two principals": source(principals=[ID, f"spiffe://{ID}"]),
    "one of two ports": "to: [{operation: {ports: ['80', '15008']}}]",
}


@pytest.mark.parametrize("name", PARTLY)
def test_a_value_that_does_nothing_is_told_of_alone(name: str) -> None:
    found = mesh(policy(f"{{action: DENY, rules: [{{{PARTLY[name]}}}]}}"))
    (note,) = found.notes
    assert ("excludes nobody" if name.startswith("not") else "matches nobody") in note.message


FINE = {
    "everybody": source(principals=["*"]),
    "one": source(principals=[ID]),
    "a beginning": source(principals=[f"{DOMAIN}/ns/shop/*", f"{DOMAIN}/ns/sh*", "cluster*"]),
    "an end": source(principals=["*/sa/web", "*/web", "*eb", "*/ns/shop/sa/web"]),
    "an account with dots": source(principals=[f"{DOMAIN}/ns/shop/sa/web.v1"]),
    "namespaces": source(namespaces=["shop", "shop-*", "*-prod", "1"]),
    "nobody with an identity": source(notPrincipals=["*"]),
    "accounts": source(serviceAccounts=["web", "shop/web.v1"]),
    "blocks": source(ipBlocks=["0.0.0.0/0", "::/0", "10.0.0.1", "169.254.7.127", "fe80::/10"]),
    "some of a block": source(ipBlocks=["10.0.0.0/8"], notIpBlocks=["10.1.0.0/16"]),
    "some of a beginning": source(namespaces=["shop*"], notNamespaces=["shop-test"]),
    "both": source(principals=[ID], namespaces=["shop"]),
    "ports": "to: [{operation: {ports: ['80', '65535']}}]",
    "anybody": "",
}


@pytest.mark.parametrize("name", FINE)
def test_nothing_is_said_of_a_rule_that_can_match(name: str) -> None:
    for action in ("ALLOW", "DENY"):
        rules = f"[{{{FINE[name]}}}]" if FINE[name] else "[{}]"
        assert mesh(policy(f"{{action: {action}, rules: {rules}}}")).notes == ()


def test_nothing_is_said_of_a_policy_that_means_to_allow_nobody() -> None:
    assert mesh(policy("{action: ALLOW}")).notes == ()


def test_the_trust_domain_is_the_meshs() -> None:
    text = policy(f"{{rules: [{{{source(principals=['example.org/ns/shop/sa/web'])}}}]}}")
    assert mesh(text, trust_domain="example.org").notes == ()
    assert len(mesh(text).notes) == 3


def test_a_long_list_is_a_few_notes() -> None:
    many = [f"Shop{number}" for number in range(100)]
    found = mesh(policy(f"{{action: DENY, rules: [{{{source(namespaces=many)}}}]}}"))
    assert len(found.notes) == NOTES_MAX + 2
    assert found.notes[NOTES_MAX].message == f"and {101 - NOTES_MAX} more of the kind"


def test_a_note_goes_with_its_cause() -> None:
    wrong = source(namespaces=["Shop"])
    subject = Mesh(Settings(), KnownCaptures(frozenset()))
    for rule, notes in ((wrong, 3), (wrong.lower(), 0), (wrong, 3)):
        subject.apply(objects(policy(f"{{rules: [{{{rule}}}]}}")).by_key())
        assert len(subject.notes) == notes


# -- no rule that could match is ever said to be impossible ---------------------------------------

LABELS = st.sampled_from(["a", "shop", "shop-1", "9"])
IDS = st.builds(SpiffeId, st.just(DOMAIN), LABELS, st.sampled_from(["web", "web.v1", "a"]))
PEERS = st.one_of(st.none(), IDS)
HOSTS = ("10.1.0.1", "10.2.0.1", "fd00::1")
CONNECTIONS = st.builds(
    Connection,
    PEERS,
    st.sampled_from(HOSTS).map(parse_address),
    st.sampled_from(HOSTS).map(parse_address),
    st.sampled_from([80, 90]),
)
WORDS = st.one_of(
    IDS.map(lambda each: each.principal),
    LABELS,
    st.sampled_from(["*", "Shop", "spiffe://x", "*/web", "shop*", f"{DOMAIN}/*", "*a", "a b"]),
).map(string_match)
BLOCKS = st.sampled_from(["10.0.0.0/8", "10.1.0.0/16", "127.0.0.1", "::/0"]).map(parse_block)
ACCOUNTS = st.builds(ServiceAccountMatch, LABELS, st.sampled_from(["web", "Web"]))
PORTS = st.sampled_from([80, 90, 15008])


def some(values: st.SearchStrategy) -> st.SearchStrategy:  # type: ignore[type-arg]
    return st.lists(values, max_size=2).map(tuple)


MATCHES = st.builds(
    Match, *[some(WORDS)] * 4, *[some(ACCOUNTS)] * 2, *[some(BLOCKS)] * 4, *[some(PORTS)] * 2
)


@settings(max_examples=400)
@given(MATCHES, st.lists(CONNECTIONS, min_size=5, max_size=20))
def test_what_cannot_match_matches_nothing(match: Match, connections: list[Connection]) -> None:
    if any(match.matches(each) for each in connections):
        assert can_match(match, DOMAIN)


@given(IDS, st.data())
def test_every_part_of_an_identity_is_possible(peer: SpiffeId, data: st.DataObject) -> None:
    text = peer.principal
    cut = data.draw(st.integers(1, len(text) - 1))
    for value in (text, f"{text[:cut]}*", f"*{text[cut:]}"):
        assert list(unmatched(Match(principals=(string_match(value),)), DOMAIN)) == []
