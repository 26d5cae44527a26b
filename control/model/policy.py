"""L4 policy: its values, and `decide()`, the only function that admits a connection.

Semantics follow Istio's ambient mode: a policy is an OR of rules, a rule an AND of clauses, a
clause an OR of matches, a match an AND of fields, a field an OR of values. The empty cases are
part of the contract: a policy without rules never matches, a rule without clauses always does, a
clause without matches always does, and a match without any field never does.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

from control.model.address import Address, CidrBlock
from control.model.identity import SpiffeId


class PolicyScope(Enum):
    GLOBAL = 0
    NAMESPACE = 1
    WORKLOAD_SELECTOR = 2


class Action(Enum):
    ALLOW = 0
    DENY = 1


class StringMatchKind(Enum):
    EXACT = 0
    PREFIX = 1
    SUFFIX = 2
    PRESENCE = 3


@dataclass(frozen=True, slots=True)
class StringMatch:
    kind: StringMatchKind
    value: str = ""

    def matches(self, text: str) -> bool:
        """Plain comparison of whole letters: no pattern language, so no way around it."""
        match self.kind:
            case StringMatchKind.EXACT:
                return text == self.value
            case StringMatchKind.PREFIX:
                return text.startswith(self.value)
            case StringMatchKind.SUFFIX:
                return text.endswith(self.value)
            case StringMatchKind.PRESENCE:
                return text != ""


@dataclass(frozen=True, slots=True)
class ServiceAccountMatch:
    namespace: str
    service_account: str


@dataclass(frozen=True, slots=True)
class Connection:
    """The facts that a decision may use. `source` is None for a caller without a verified
    identity."""

    source: SpiffeId | None
    source_ip: Address
    destination_ip: Address
    destination_port: int  # the workload's own port: never the service's, never 15008


@dataclass(frozen=True, slots=True)
class Match:
    namespaces: tuple[StringMatch, ...] = ()
    not_namespaces: tuple[StringMatch, ...] = ()
    principals: tuple[StringMatch, ...] = ()
    not_principals: tuple[StringMatch, ...] = ()
    service_accounts: tuple[ServiceAccountMatch, ...] = ()
    not_service_accounts: tuple[ServiceAccountMatch, ...] = ()
    source_ips: tuple[CidrBlock, ...] = ()
    not_source_ips: tuple[CidrBlock, ...] = ()
    destination_ips: tuple[CidrBlock, ...] = ()
    not_destination_ips: tuple[CidrBlock, ...] = ()
    destination_ports: tuple[int, ...] = ()
    not_destination_ports: tuple[int, ...] = ()

    @property
    def is_empty(self) -> bool:
        """True if it asks for nothing: then it never matches."""
        return not (
            self.namespaces
            or self.principals
            or self.service_accounts
            or self.destination_ports
            or self.source_ips
            or self.destination_ips
            or self.not_namespaces
            or self.not_principals
            or self.not_service_accounts
            or self.not_destination_ports
            or self.not_source_ips
            or self.not_destination_ips
        )

    def matches(self, connection: Connection) -> bool:
        if self.is_empty:
            return False
        return (
            self._identity_matches(connection.source)
            and _address_matches(self.source_ips, self.not_source_ips, connection.source_ip)
            and _address_matches(
                self.destination_ips, self.not_destination_ips, connection.destination_ip
            )
            and _port_matches(
                self.destination_ports, self.not_destination_ports, connection.destination_port
            )
        )

    def _identity_matches(self, source: SpiffeId | None) -> bool:
        """Without an identity every positive field fails and every negative one holds."""
        if source is None:
            return not (self.namespaces or self.principals or self.service_accounts)
        return (
            _string_matches(self.namespaces, self.not_namespaces, source.namespace)
            and _string_matches(self.principals, self.not_principals, source.principal)
            and self._account_matches(source)
        )

    def _account_matches(self, source: SpiffeId) -> bool:
        if not self.service_accounts and not self.not_service_accounts:
            return True
        account = ServiceAccountMatch(source.namespace, source.service_account)
        if self.service_accounts and account not in self.service_accounts:
            return False
        return account not in self.not_service_accounts


def _string_matches(
    wanted: tuple[StringMatch, ...], unwanted: tuple[StringMatch, ...], text: str
) -> bool:
    if not wanted and not unwanted:
        return True
    if wanted and not any(each.matches(text) for each in wanted):
        return False
    return not any(each.matches(text) for each in unwanted)


def _address_matches(
    wanted: tuple[CidrBlock, ...], unwanted: tuple[CidrBlock, ...], address: Address
) -> bool:
    if not wanted and not unwanted:
        return True
    if wanted and not any(address in block for block in wanted):
        return False
    return not any(address in block for block in unwanted)


def _port_matches(wanted: tuple[int, ...], unwanted: tuple[int, ...], port: int) -> bool:
    return (not wanted or port in wanted) and port not in unwanted


@dataclass(frozen=True, slots=True)
class Clause:
    matches_any: tuple[Match, ...] = ()

    def matches(self, connection: Connection) -> bool:
        return not self.matches_any or any(each.matches(connection) for each in self.matches_any)


@dataclass(frozen=True, slots=True)
class Rule:
    clauses: tuple[Clause, ...] = ()

    def matches(self, connection: Connection) -> bool:
        return all(clause.matches(connection) for clause in self.clauses)


@dataclass(frozen=True, slots=True)
class Policy:
    name: str
    namespace: str
    scope: PolicyScope
    action: Action
    rules: tuple[Rule, ...] = ()
    dry_run: bool = False

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"

    def matching_rule(self, connection: Connection) -> int | None:
        """The index of the first rule that matches, or None."""
        for index, rule in enumerate(self.rules):
            if rule.matches(connection):
                return index
        return None


@dataclass(frozen=True, slots=True)
class Permit:
    """Proof that `decide()` said yes. Nothing else constructs one."""

    connection: Connection
    policy: str | None  # the ALLOW policy that matched; None: no policy restricts this workload


@dataclass(frozen=True, slots=True)
class Deny:
    """A refusal. `policy` is the DENY policy that matched, or None when no ALLOW policy did."""

    policy: str | None
    # The ALLOW policies that did not match: for people, not part of the verdict.
    unmatched: tuple[str, ...] = field(default=(), compare=False)

    def __str__(self) -> str:
        if self.policy is None:
            asked = f" ({', '.join(self.unmatched)})" if self.unmatched else ""
            return f"policy rejection: allow policies exist, but none allowed{asked}"
        return f"policy rejection: explicitly denied by: {self.policy}"


@dataclass(frozen=True, slots=True)
class WouldDeny:
    """A dry-run policy would have refused this connection; nothing was enforced."""

    policy: str | None


def decide(policies: Iterable[Policy], connection: Connection) -> Permit | Deny:
    """The evaluation order of Istio's ambient mode: deny first, then allow, else open.

    `policies` are those that apply to the destination workload (`applicable()`); `would_deny()`
    answers for dry-run policies, which are skipped here.
    """
    permit: str | None = None
    unmatched: list[str] = []
    for policy in policies:
        if policy.dry_run or (policy.action is Action.ALLOW and permit is not None):
            continue
        matched = policy.matching_rule(connection) is not None
        if policy.action is Action.DENY:
            if matched:
                return Deny(policy.key)
        elif matched:
            permit = policy.key
        else:
            unmatched.append(policy.key)
    if unmatched and permit is None:
        return Deny(None, tuple(unmatched))
    return Permit(connection, permit)


def would_deny(policies: Iterable[Policy], connection: Connection) -> WouldDeny | None:
    """The refusal of the dry-run policies alone, if any; nothing is enforced."""
    dry = [policy for policy in policies if policy.dry_run]
    if not dry:
        return None
    for policy in dry:
        if policy.action is Action.DENY and policy.matching_rule(connection) is not None:
            return WouldDeny(policy.key)
    allows = [policy for policy in dry if policy.action is Action.ALLOW]
    if allows and all(policy.matching_rule(connection) is None for policy in allows):
        return WouldDeny(None)
    return None
