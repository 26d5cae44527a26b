"""Ports of a pod at which every caller without an identity is refused, whoever it is. No I/O.

The kernel refuses their SYNs, so it must be certain: only DENY policies count that name the lack of
an identity, and nothing else but ports. `STRICT` is such a policy. Any other refuses after the
accept, where that is logged with its reason.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from control.model.policy import Action, Match, Policy, Rule, StringMatch, StringMatchKind

_NOBODY = StringMatch(StringMatchKind.PRESENCE)  # as a not_principal: no identity at all
_ANY_OTHER = 0  # a port that no policy can name
# As many as the kernel's table of a pod has room for.
PORTS_MAX = 63


@dataclass(frozen=True, slots=True)
class RefusedPorts:
    """`everywhere`: all ports are refused except `but` these; or else those alone."""

    everywhere: bool
    but: tuple[int, ...] = ()


ASK = RefusedPorts(everywhere=False)


def refused_ports(policies: Iterable[Policy]) -> RefusedPorts:
    """The ports that these policies close to plaintext."""
    denying = [each for each in policies if each.action is Action.DENY and not each.dry_run]
    named = sorted({port for each in denying for port in _ports_of(each)})
    everywhere = _denies(denying, _ANY_OTHER)
    but = tuple(port for port in named if _denies(denying, port) is not everywhere)
    return RefusedPorts(everywhere, but) if len(but) <= PORTS_MAX else ASK


def _denies(policies: Iterable[Policy], port: int) -> bool:
    return any(_certain(rule, port) for policy in policies for rule in policy.rules)


def _certain(rule: Rule, port: int) -> bool:
    """True if the rule matches every caller without an identity at this port."""
    found = [
        any(_matches_nobody(each, port) for each in clause.matches_any)
        for clause in rule.clauses
        if clause.matches_any  # an empty one always matches
    ]
    return bool(found) and all(found)


def _matches_nobody(match: Match, port: int) -> bool:
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
    if asks_more or _NOBODY not in match.not_principals:
        return False
    wanted, unwanted = match.destination_ports, match.not_destination_ports
    return (not wanted or port in wanted) and port not in unwanted


def _ports_of(policy: Policy) -> Iterable[int]:
    for rule in policy.rules:
        for clause in rule.clauses:
            for match in clause.matches_any:
                yield from match.destination_ports
                yield from match.not_destination_ports
