"""L7 policies as rules of Envoy's RBAC filters, which ride on a front's routes.

DENY and ALLOW are two filters, in this order. A policy's rule is an AND of clauses, an entry of
Envoy's rules is permissions AND principals: source fields are principals, all others permissions.

Some fields cannot be known where they are asked for: fields of a request on a TCP connection, and
those of a token while none is verified. Then nothing is allowed by them, and all is denied.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from dataclasses import field as made

from control.model.http_policy import HttpClause, HttpMatch, HttpPolicy, HttpPolicyRule
from control.model.policy import Action
from control.model.route import Front, Layer
from control.server.envoy import request_fields as request
from control.server.envoy import source_fields as source
from control.server.envoy.names import Json, any_of

VARIANTS_MAX = 64  # entries that one rule may become; Istio's rules become one

_EVERYTHING: Json = {"any": True}


@dataclass(slots=True)
class _Term:
    """An AND of both."""

    permissions: list[Json] = made(default_factory=list)
    principals: list[Json] = made(default_factory=list)

    def also(self, other: _Term) -> _Term:
        return _Term(
            self.permissions + other.permissions,
            self.principals + other.principals,
        )

    @property
    def permission(self) -> Json:
        return _all(self.permissions, "and_rules", "rules")

    @property
    def principal(self) -> Json:
        return _all(self.principals, "and_ids", "ids")


def _all(parts: list[Json], key: str, inner: str) -> Json:
    if len(parts) < 2:
        return parts[0] if parts else _EVERYTHING
    return {key: {inner: parts}}


def rules(front: Front, action: Action) -> Json:
    """Orders to one of the two filters about a front, its `RBACPerRoute`."""
    mine = [each for each in front.policies if each.action is action]
    rbac: Json = {}
    for key, is_dry in (("rules", False), ("shadow_rules", True)):
        some = [each for each in mine if each.dry_run is is_dry]
        if some:  # an ALLOW policy without an entry allows nothing
            entries = {name: one for each in some for name, one in _entries(each, front)}
            rbac[key] = {"action": action.name, "policies": entries}
    return any_of("extensions.filters.http.rbac.v3.RBACPerRoute", rbac=rbac)


def no_rules() -> Json:
    """A front that this filter lets pass."""
    return any_of("extensions.filters.http.rbac.v3.RBACPerRoute", rbac={})


def _entries(policy: HttpPolicy, front: Front) -> Iterable[tuple[str, Json]]:
    for number, rule in enumerate(policy.rules):
        terms = _rule(rule, policy.action, front)
        for variant, term in enumerate(terms):
            name = f"{policy.name}[{number}]" + (f".{variant}" if len(terms) > 1 else "")
            yield name, {"permissions": [term.permission], "principals": [term.principal]}


def _rule(rule: HttpPolicyRule, action: Action, front: Front) -> list[_Term]:
    """An OR of terms; none: it never matches."""
    variants = [_Term()]
    for clause in rule.clauses:
        found = _clause(clause, action, front)
        if len(variants) * len(found) > VARIANTS_MAX:
            return [] if action is Action.ALLOW else [_Term()]
        variants = [one.also(more) for one in variants for more in found]
    return variants


def _clause(clause: HttpClause, action: Action, front: Front) -> list[_Term]:
    """An OR of terms, one if it can be said in one."""
    if not clause.matches_any:
        return [_Term()]
    terms = [
        term for each in clause.matches_any if (term := _match(each, action, front)) is not None
    ]
    if len(terms) < 2:
        return terms
    if any(not term.permissions and not term.principals for term in terms):
        return [_Term()]
    if not any(term.permissions for term in terms):
        return [_Term(principals=[{"or_ids": {"ids": [term.principal for term in terms]}}])]
    if not any(term.principals for term in terms):
        ored = {"or_rules": {"rules": [term.permission for term in terms]}}
        return [_Term(permissions=[ored])]
    return terms


def _match(match: HttpMatch, action: Action, front: Front) -> _Term | None:
    """None: it never matches."""
    if match.is_empty:
        return None
    is_strict = action is Action.DENY
    where = source.destination_holds(match.l4, front, is_strict)
    if not where:
        return None
    term = _Term()
    for found in source.principals(match.l4):
        if found is None:
            return None
        term.principals.append(found)
    has_unknown = request.asks_token(match)
    if front.layer is Layer.HTTP:
        try:
            term.permissions += request.permissions(match, is_strict)
        except request.UnaskableField:
            has_unknown = True
    else:
        has_unknown = has_unknown or not match.is_l4
    return None if has_unknown and not is_strict else term
