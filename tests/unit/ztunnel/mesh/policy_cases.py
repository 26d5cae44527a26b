"""Policies and connections of few names, so that random ones meet. Made from a seed: drawing them
part by part costs more than what they test."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TypeVar

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
TEXTS = (
    "",
    "a",
    "ab",
    "b",
    f"{DOMAIN}/ns/a",
    "/sa/x",
    "x",
    *(each.principal for each in IDENTITIES),
)

_Part = TypeVar("_Part")


def _several(random: Random, most: int, make: Callable[[], _Part]) -> tuple[_Part, ...]:
    return tuple(make() for _ in range(random.randint(0, most)))


def _match(random: Random) -> Match:
    def some(make: Callable[[], _Part]) -> tuple[_Part, ...]:
        """Mostly none: a match that asks for everything matches nothing."""
        return _several(random, 3, make) if random.random() < 0.25 else ()

    def text() -> StringMatch:
        return StringMatch(random.choice(list(StringMatchKind)), random.choice(TEXTS))

    def account() -> ServiceAccountMatch:
        return ServiceAccountMatch(random.choice(NAMESPACES), random.choice(ACCOUNTS))

    return Match(
        namespaces=some(text),
        not_namespaces=some(text),
        principals=some(text),
        not_principals=some(text),
        service_accounts=some(account),
        not_service_accounts=some(account),
        source_ips=some(lambda: random.choice(BLOCKS)),
        not_source_ips=some(lambda: random.choice(BLOCKS)),
        destination_ips=some(lambda: random.choice(BLOCKS)),
        not_destination_ips=some(lambda: random.choice(BLOCKS)),
        destination_ports=some(lambda: random.choice(PORTS)),
        not_destination_ports=some(lambda: random.choice(PORTS)),
    )


def some_rule(random: Random) -> Rule:
    def clause() -> Clause:
        return Clause(_several(random, 3, lambda: _match(random)))

    return Rule(_several(random, 3, clause))


def some_policies(random: Random, most: int) -> list[Policy]:
    """None of a name and namespace that another has."""

    def policy() -> Policy:
        return Policy(
            random.choice("pqrs"),
            random.choice(("shop", "other")),
            random.choice(list(PolicyScope)),
            random.choice(list(Action)),
            _several(random, 3, lambda: some_rule(random)),
            random.random() < 0.3,
        )

    return list({each.key: each for each in _several(random, most, policy)}.values())


def some_call(random: Random) -> Connection:
    return Connection(
        random.choice([None, *IDENTITIES]),
        random.choice(ADDRESSES),
        random.choice(ADDRESSES),
        random.choice(PORTS),
    )
