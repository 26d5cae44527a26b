"""AuthorizationPolicy objects → policies, exactly as much of them as layer 4 can decide.

An ALLOW rule that needs more than layer 4 knows is dropped whole, so less is allowed. A DENY rule
loses what layer 4 cannot see, so more is denied; a clause of it left with nothing never matches.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from control.model.address import CidrBlock
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
from control.server.compile.settings import Settings
from control.server.compile.unmatched import can_match, unmatched
from control.server.sources.objects import (
    AuthorizationPolicy,
    Condition,
    Key,
    Operation,
    PolicyAction,
    PolicyRule,
    PolicySource,
)

DRY_RUN_ANNOTATION = "istio.io/dry-run"
# Values of one policy that match nobody, told one by one.
NOTES_MAX = 20


@dataclass(frozen=True, slots=True)
class PolicyStatus:
    """Outcome of one policy object, for people."""

    kind: str
    namespace: str
    name: str
    delivered: bool
    # "Accepted", "UnsupportedValue", "Unmatched", "Broken", "ForWaypoint", "NoEffect"
    reason: str
    notes: tuple[str, ...]
    scope: str
    action: str
    file: str
    line: int


@dataclass(frozen=True, slots=True)
class Compiled:
    policy: Policy | None
    status: PolicyStatus


@dataclass(slots=True)
class PolicyChanges:
    """Differences since the last time; None: it is gone. `pods` may have other policies by now:
    groups of them, to be walked before anybody moves."""

    policies: dict[str, Policy | None] = field(default_factory=dict)
    statuses: dict[Key, PolicyStatus | None] = field(default_factory=dict)
    pods: list[Iterable[Key]] = field(default_factory=list)


def compile_authorization_policy(value: AuthorizationPolicy, settings: Settings) -> Compiled:
    scope = scope_of(value, settings)
    refusal = _not_for_us(value, settings)
    if refusal is not None:
        return Compiled(None, _status(value, scope, False, *refusal))
    if value.broken:
        policy = _stand_in(value, scope)
        note = f"cannot be understood, so everything in its scope is denied: {value.broken}"
        return Compiled(policy, _status(value, scope, True, "Broken", (note,)))
    action = Action.DENY if value.action is PolicyAction.DENY else Action.ALLOW
    notes: list[str] = []
    rules = []
    beside: list[str] = []
    for index, each in enumerate(value.rules):
        rule = _rule(each, action, f"rules[{index}]", notes)
        if rule is not None:
            rules.append(rule)
            beside += _unmatched(rule, f"rules[{index}]", settings.trust_domain)
    policy = Policy(
        name=value.meta.name,
        namespace=value.meta.namespace,
        scope=scope,
        action=action,
        rules=tuple(rules),
        dry_run=_is_dry_run(value),
    )
    reason = "UnsupportedValue" if notes else "Unmatched" if beside else "Accepted"
    notes += shortened(beside)
    notes += _effects(policy, bool(value.rules), settings.trust_domain)
    return Compiled(policy, _status(value, scope, True, reason, tuple(notes)))


def scope_of(value: AuthorizationPolicy, settings: Settings) -> PolicyScope:
    if value.selector:
        return PolicyScope.WORKLOAD_SELECTOR
    if value.meta.namespace == settings.root_namespace:
        return PolicyScope.GLOBAL
    return PolicyScope.NAMESPACE


def _is_dry_run(value: AuthorizationPolicy) -> bool:
    return value.meta.annotations.get(DRY_RUN_ANNOTATION) == "true"


def _not_for_us(
    value: AuthorizationPolicy, settings: Settings
) -> tuple[str, tuple[str, ...]] | None:
    if value.has_target_refs:
        return "ForWaypoint", ()  # `gateway` says what becomes of it
    if value.action in (PolicyAction.CUSTOM, PolicyAction.AUDIT):
        return "UnsupportedValue", (f"action {value.action.value} needs a waypoint",)
    if _is_dry_run(value) and not settings.dry_run_policies:
        return "UnsupportedValue", (f"{DRY_RUN_ANNOTATION}: dry-run policies are switched off",)
    return None


def _stand_in(value: AuthorizationPolicy, scope: PolicyScope) -> Policy:
    """A broken ALLOW allows nothing; a broken DENY, or an unknown action, denies everything.

    The difference matters beside other policies: a broken ALLOW leaves the permissions of another
    ALLOW alone, but a broken DENY might have been there to forbid just that.
    """
    allow = value.action is PolicyAction.ALLOW
    return Policy(
        name=value.meta.name,
        namespace=value.meta.namespace,
        scope=scope,
        action=Action.ALLOW if allow else Action.DENY,
        rules=() if allow else (Rule(),),
        dry_run=_is_dry_run(value),
    )


def _status(
    value: AuthorizationPolicy,
    scope: PolicyScope,
    delivered: bool,
    reason: str,
    notes: tuple[str, ...],
) -> PolicyStatus:
    meta = value.meta
    return PolicyStatus(
        kind="AuthorizationPolicy",
        namespace=meta.namespace,
        name=meta.name,
        delivered=delivered,
        reason=reason,
        notes=notes,
        scope=scope.name,
        action=value.action.value if value.action is not None else "UNKNOWN",
        file=meta.file,
        line=meta.line,
    )


def _effects(policy: Policy, had_rules: bool, trust_domain: str) -> list[str]:
    if policy.action is Action.ALLOW:
        if had_rules and not policy.rules:
            return ["no rule is left: everything in its scope is denied"]
        if had_rules and not any(_can_fire(rule, trust_domain) for rule in policy.rules):
            return ["no rule can ever match: everything in its scope is denied"]
        return []
    if not any(_can_fire(rule, trust_domain) for rule in policy.rules):
        return ["no rule can ever match: the policy has no effect"]
    return []


def _can_fire(rule: Rule, trust_domain: str) -> bool:
    return all(
        not clause.matches_any or any(can_match(each, trust_domain) for each in clause.matches_any)
        for clause in rule.clauses
    )


def _unmatched(rule: Rule, where: str, trust_domain: str) -> Iterator[str]:
    """Values of a rule that match nobody, and the rule if it cannot match at all."""
    matches = [match for clause in rule.clauses for match in clause.matches_any]
    for match in matches:
        yield from (f"{where}: {said}" for said in unmatched(match, trust_domain))
    if not any(match.is_empty for match in matches) and not _can_fire(rule, trust_domain):
        yield f"{where}: the rule never matches"


def shortened(notes: list[str]) -> list[str]:
    """The first few, and the number of the rest."""
    more = len(notes) - NOTES_MAX
    return notes if more <= 0 else [*notes[:NOTES_MAX], f"and {more} more of the kind"]


def _rule(value: PolicyRule, action: Action, where: str, notes: list[str]) -> Rule | None:
    beyond = _beyond_l4(value)
    if beyond:
        names = ", ".join(beyond)
        if action is Action.ALLOW:
            notes.append(f"{where}: layer 4 cannot check {names}: the rule is dropped")
            return None
        notes.append(f"{where}: layer 4 cannot check {names}: the rule is enforced without")
    clauses = []
    if value.operations:
        clauses.append(Clause(tuple(_operation(each) for each in value.operations)))
    if value.sources:
        clauses.append(Clause(tuple(source_match(each) for each in value.sources)))
    clauses += [Clause((condition_match(each),)) for each in value.conditions]
    rule = Rule(tuple(clauses))
    if action is Action.DENY and _has_lost_a_clause(rule):
        notes.append(f"{where}: nothing is left of a clause: the rule never matches")
    return rule


def _has_lost_a_clause(rule: Rule) -> bool:
    return any(
        clause.matches_any and all(match.is_empty for match in clause.matches_any)
        for clause in rule.clauses
    )


def _beyond_l4(value: PolicyRule) -> list[str]:
    found = [name for each in value.sources for name in each.beyond_l4]
    found += [name for each in value.operations for name in each.beyond_l4]
    found += [each.key for each in value.conditions if each.beyond_l4]
    return list(dict.fromkeys(found))


def _operation(value: Operation) -> Match:
    return Match(destination_ports=value.ports, not_destination_ports=value.not_ports)


def source_match(value: PolicySource) -> Match:
    """Fields of a source that layer 4 knows."""
    return Match(
        namespaces=string_matches(value.namespaces),
        not_namespaces=string_matches(value.not_namespaces),
        principals=string_matches(value.principals),
        not_principals=string_matches(value.not_principals),
        service_accounts=_accounts(value.service_accounts),
        not_service_accounts=_accounts(value.not_service_accounts),
        source_ips=value.ip_blocks,
        not_source_ips=value.not_ip_blocks,
    )


def condition_match(value: Condition) -> Match:
    """A condition, as far as layer 4 knows it."""
    texts = tuple(each for each in value.values if isinstance(each, str))
    not_texts = tuple(each for each in value.not_values if isinstance(each, str))
    blocks = tuple(each for each in value.values if isinstance(each, CidrBlock))
    not_blocks = tuple(each for each in value.not_values if isinstance(each, CidrBlock))
    match value.key:
        case "source.namespace":
            return Match(namespaces=string_matches(texts), not_namespaces=string_matches(not_texts))
        case "source.principal":
            return Match(principals=string_matches(texts), not_principals=string_matches(not_texts))
        case "source.serviceAccount":
            return Match(
                service_accounts=_accounts(texts), not_service_accounts=_accounts(not_texts)
            )
        case "source.ip":
            return Match(source_ips=blocks, not_source_ips=not_blocks)
        case "destination.ip":
            return Match(destination_ips=blocks, not_destination_ips=not_blocks)
        case "destination.port":
            return Match(
                destination_ports=tuple(each for each in value.values if isinstance(each, int)),
                not_destination_ports=tuple(
                    each for each in value.not_values if isinstance(each, int)
                ),
            )
        case _:
            return Match()  # beyond layer 4: no field is left


def string_matches(values: tuple[str, ...]) -> tuple[StringMatch, ...]:
    """As `string_match`, each."""
    return tuple(string_match(each) for each in values)


def string_match(text: str) -> StringMatch:
    """`*` any, `abc*` prefix, `*abc` suffix, else exact."""
    if text == "*":
        return StringMatch(StringMatchKind.PRESENCE)
    if text.startswith("*"):
        return StringMatch(StringMatchKind.SUFFIX, text[1:])
    if text.endswith("*"):
        return StringMatch(StringMatchKind.PREFIX, text[:-1])
    return StringMatch(StringMatchKind.EXACT, text)


def _accounts(values: tuple[str, ...]) -> tuple[ServiceAccountMatch, ...]:
    return tuple(ServiceAccountMatch(*each.split("/", 1)) for each in values)
