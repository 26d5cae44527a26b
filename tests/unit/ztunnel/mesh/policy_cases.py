"""Policies and connections of few names, so that random ones meet."""

from __future__ import annotations

from hypothesis import strategies as st

from control.model.address import parse_address, parse_block
from control.model.identity import SpiffeId
from control.model.policy import (
    Action,
    Clause,
    Connection,
    Match,
    Policy,
    PolicyScope,
    Rule,
    ServiceAccountMatch,
    StringMatch,
    StringMatchKind,
)

DOMAIN, NAMESPACES, ACCOUNTS = "cluster.local", ("a", "ab", "b"), ("x", "xy")
IDENTITIES = [SpiffeId(DOMAIN, one, other) for one in NAMESPACES for other in ACCOUNTS]
ADDRESSES = [parse_address(text) for text in ("10.0.0.1", "10.0.1.1", "11.0.0.1", "fd00::1", "::1")]
BLOCKS = [
    parse_block(text)
    for text in ("10.0.0.0/24", "10.0.0.0/8", "0.0.0.0/0", "10.0.0.1", "::/0", "fd00::/8", "::1")
]
PORTS = (80, 81, 8080)
_TEXTS = (
    "",
    "a",
    "ab",
    "b",
    f"{DOMAIN}/ns/a",
    "/sa/x",
    "x",
    *(each.principal for each in IDENTITIES),
)

_strings = st.builds(StringMatch, st.sampled_from(StringMatchKind), st.sampled_from(_TEXTS))
_account = st.builds(ServiceAccountMatch, st.sampled_from(NAMESPACES), st.sampled_from(ACCOUNTS))


def _some(values: st.SearchStrategy[object]) -> st.SearchStrategy[tuple[object, ...]]:
    """Mostly none: a match that asks for everything matches nothing."""
    few = st.lists(values, min_size=1, max_size=3).map(tuple)
    return st.one_of(st.just(()), st.just(()), st.just(()), few)


_matches = st.builds(
    Match,
    namespaces=_some(_strings),
    not_namespaces=_some(_strings),
    principals=_some(_strings),
    not_principals=_some(_strings),
    service_accounts=_some(_account),
    not_service_accounts=_some(_account),
    source_ips=_some(st.sampled_from(BLOCKS)),
    not_source_ips=_some(st.sampled_from(BLOCKS)),
    destination_ips=_some(st.sampled_from(BLOCKS)),
    not_destination_ips=_some(st.sampled_from(BLOCKS)),
    destination_ports=_some(st.sampled_from(PORTS)),
    not_destination_ports=_some(st.sampled_from(PORTS)),
)
rules = st.builds(
    Rule,
    st.lists(st.builds(Clause, st.lists(_matches, max_size=3).map(tuple)), max_size=3).map(tuple),
)
policies = st.builds(
    Policy,
    st.sampled_from(("p", "q", "r", "s")),
    st.sampled_from(("shop", "other")),
    st.sampled_from(PolicyScope),
    st.sampled_from(Action),
    st.lists(rules, max_size=3).map(tuple),
    st.booleans(),
)
connections = st.builds(
    Connection,
    st.sampled_from([None, *IDENTITIES]),
    st.sampled_from(ADDRESSES),
    st.sampled_from(ADDRESSES),
    st.sampled_from(PORTS),
)
