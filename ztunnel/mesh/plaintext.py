"""Ports of a pod at which every caller without an identity is refused, whoever it is. No I/O.

The kernel refuses their SYNs, so it must be certain: only DENY policies count that name the lack of
an identity, and nothing else but ports. `STRICT` is such a policy. Any other refuses after the
accept, where that is logged with its reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from control.model.policy import Action, Match, Policy, Rule, StringMatch, StringMatchKind

_NOBODY = StringMatch(StringMatchKind.PRESENCE)  # as a not_principal: no identity at all
_ANY_OTHER = 0  # a port that no policy can name
# As many as the kernel's table of a pod has room for.
PORTS_MAX = 63
# Rules of one policy that may close ports, and the ports that they name; beyond, it closes none.
CLOSING_RULES_MAX = 256
CLOSING_PORTS_MAX = 4 * PORTS_MAX


@dataclass(frozen=True, slots=True)
class RefusedPorts:
    """`everywhere`: all ports are refused except `but` these; or else those alone."""

    everywhere: bool
    but: tuple[int, ...] = ()

    def at(self, port: int) -> bool:
        return self.everywhere is not (port in self.but)


ASK = RefusedPorts(everywhere=False)


def refused_ports(found: Iterable[RefusedPorts]) -> RefusedPorts:
    """The ports that any of these closes, if the kernel has room for them."""
    whole = together(found)
    return whole if len(whole.but) <= PORTS_MAX else ASK


def together(found: Iterable[RefusedPorts]) -> RefusedPorts:
    """The ports that any of these closes, however many."""
    several = [each for each in found if each != ASK]
    if len(several) < 2:
        return several[0] if several else ASK
    named = sorted({port for each in several for port in each.but})
    return _closed(named, lambda port: any(each.at(port) for each in several))


def closed_by(policy: Policy) -> RefusedPorts:
    """The ports that a policy closes to plaintext by itself."""
    if policy.action is not Action.DENY or policy.dry_run:
        return ASK
    rules = [each for each in policy.rules if _may_be_certain(each)]
    named = sorted({port for each in rules for port in _ports_of(each)})
    if len(rules) > CLOSING_RULES_MAX or len(named) > CLOSING_PORTS_MAX:
        return ASK
    return _closed(named, lambda port: any(_certain(each, port) for each in rules))


def _closed(named: list[int], is_closed: Callable[[int], bool]) -> RefusedPorts:
    everywhere = is_closed(_ANY_OTHER)
    return RefusedPorts(
        everywhere, tuple(port for port in named if is_closed(port) is not everywhere)
    )


def _certain(rule: Rule, port: int) -> bool:
    """True if the rule matches every caller without an identity at this port."""
    found = [
        any(_matches_nobody(each) and _matches_port(each, port) for each in clause.matches_any)
        for clause in rule.clauses
        if clause.matches_any  # an empty one always matches
    ]
    return bool(found) and all(found)


def _may_be_certain(rule: Rule) -> bool:
    """True if it is, at some port perhaps."""
    clauses = [each for each in rule.clauses if each.matches_any]
    return bool(clauses) and all(any(map(_matches_nobody, each.matches_any)) for each in clauses)


def _matches_nobody(match: Match) -> bool:
    """True if it asks for the lack of an identity, and for nothing else but ports."""
    asks_more = (
        match.namespaces
        or match.principals
        or match.service_accounts
        or match.not_namespaces
        or match.not_service_accounts
        or match.source_ips
        or match.not_source_ips
        or match.destination_ips
        or match.not_destination_ips
    )
    return not asks_more and _NOBODY in match.not_principals


def _matches_port(match: Match, port: int) -> bool:
    wanted, unwanted = match.destination_ports, match.not_destination_ports
    return (not wanted or port in wanted) and port not in unwanted


def _ports_of(rule: Rule) -> Iterator[int]:
    for clause in rule.clauses:
        for match in clause.matches_any:
            yield from match.destination_ports
            yield from match.not_destination_ports
