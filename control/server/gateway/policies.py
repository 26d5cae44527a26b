"""AuthorizationPolicy objects → policies of layer 7. Pure.

As at layer 4, what cannot be checked never allows: an ALLOW rule that needs it is dropped whole,
and a DENY rule is enforced without, so more is denied. CUSTOM asks somebody whom we do not ask: it
denies whatever it would have asked about.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from control.model.http_policy import (
    HttpClause,
    HttpMatch,
    HttpPolicy,
    HttpPolicyRule,
    PathTemplate,
    ValueMatch,
)
from control.model.policy import Action, Match, StringMatch
from control.model.route import Layer
from control.server.compile.policies import (
    DRY_RUN_ANNOTATION,
    condition_match,
    source_match,
    string_match,
    string_matches,
)
from control.server.sources.objects import (
    AuthorizationPolicy,
    Condition,
    Operation,
    PolicyAction,
    PolicyRule,
    PolicySource,
)

_HEADER = re.compile(r"request\.headers\[(.+)\]")
_CLAIMS = re.compile(r"request\.auth\.claims((?:\[[^\[\]]+\])+)")
_CLAIM = re.compile(r"\[([^\[\]]+)\]")
_ALIASES = {"request.auth.audiences": ("aud",), "request.auth.presenter": ("azp",)}
_TEMPLATE_MARKS = ("{*}", "{**}")
# Whole segments, none of them empty: plain letters or a mark, `{**}` as the last one.
_TEMPLATE = re.compile(r"(?:/(?:[A-Za-z0-9._~!$&'()+,;=:@%-]+|\{\*\}))*(?:/\{\*\*\})?")
# Fields of `from` that no waypoint of ours can check.
_UNKNOWN_SOURCES = ("remoteIpBlocks", "notRemoteIpBlocks", "trustDomains", "notTrustDomains")


@dataclass(frozen=True, slots=True)
class CompiledHttp:
    """`policy` None: it has no effect. `notes`: fields that are not followed as they stand."""

    policy: HttpPolicy | None
    notes: tuple[str, ...] = ()


def compile_http(value: AuthorizationPolicy, layer: Layer) -> CompiledHttp:
    """The policy as a front of this layer enforces it: of TCP nobody sees requests."""
    name = f"{value.meta.namespace}/{value.meta.name}"
    is_dry = value.meta.annotations.get(DRY_RUN_ANNOTATION) == "true"
    if value.broken:
        is_allow = value.action is PolicyAction.ALLOW
        action = Action.ALLOW if is_allow else Action.DENY
        rules = () if is_allow else (HttpPolicyRule(),)
        return CompiledHttp(HttpPolicy(name, action, rules, is_dry), (value.broken,))
    if value.action is PolicyAction.AUDIT:
        return CompiledHttp(None, ("action AUDIT has no effect",))
    notes: list[str] = []
    if value.action is PolicyAction.CUSTOM:
        notes.append("action CUSTOM is not supported: what it matches is denied")
    action = Action.ALLOW if value.action is PolicyAction.ALLOW else Action.DENY
    found = []
    for index, each in enumerate(value.rules):
        rule = _rule(each, action, layer, f"rules[{index}]", notes)
        if rule is not None:
            found.append(rule)
    return CompiledHttp(HttpPolicy(name, action, tuple(found), is_dry), tuple(notes))


def _rule(
    value: PolicyRule, action: Action, layer: Layer, where: str, notes: list[str]
) -> HttpPolicyRule | None:
    clauses = [
        [_operation(each) for each in value.operations],
        [_source(each) for each in value.sources],
        *([_condition(each)] for each in value.conditions),
    ]
    parts = [[_seen(each, layer) for each in clause] for clause in clauses if clause]
    unknown = dict.fromkeys(name for clause in parts for part in clause for name in part.unknown)
    if unknown:
        effect = "is dropped" if action is Action.ALLOW else "is enforced without"
        notes.append(f"{where}: {', '.join(unknown)} cannot be checked here: the rule {effect}")
        if action is Action.ALLOW:
            return None
    return HttpPolicyRule(tuple(_clauses(parts)))


@dataclass(frozen=True, slots=True)
class _Part:
    """One match, and the names of its fields that cannot be checked."""

    match: HttpMatch
    unknown: tuple[str, ...] = ()


def _clauses(parts: Sequence[Sequence[_Part]]) -> Iterator[HttpClause]:
    """A clause of which nothing is left in one of its matches may hold: it restricts no more."""
    for clause in parts:
        if not any(each.unknown and each.match.is_empty for each in clause):
            yield HttpClause(tuple(each.match for each in clause))


def _seen(part: _Part, layer: Layer) -> _Part:
    """The part, as far as this layer sees it."""
    if layer is Layer.HTTP or part.match.is_l4:
        return part
    bare = HttpMatch(l4=part.match.l4)
    return _Part(bare, (*part.unknown, "fields of HTTP"))


def _operation(value: Operation) -> _Part:
    """A list with a path that cannot be matched says nothing any more: any path may be meant."""
    is_odd = any(map(_is_odd_template, value.paths))
    odd = [each for each in (*value.paths, *value.not_paths) if _is_odd_template(each)]
    return _Part(
        HttpMatch(
            l4=Match(destination_ports=value.ports, not_destination_ports=value.not_ports),
            methods=string_matches(value.methods),
            not_methods=string_matches(value.not_methods),
            paths=() if is_odd else _paths(value.paths),
            not_paths=_paths(value.not_paths),
            hosts=string_matches(value.hosts),
            not_hosts=string_matches(value.not_hosts),
        ),
        tuple(f"path template {each!r}" for each in odd),
    )


def _paths(texts: tuple[str, ...]) -> tuple[StringMatch | PathTemplate, ...]:
    return tuple(
        PathTemplate(each) if _is_template(each) else string_match(each)
        for each in texts
        if not _is_odd_template(each)
    )


def _is_template(text: str) -> bool:
    return any(mark in text for mark in _TEMPLATE_MARKS)


def _is_odd_template(text: str) -> bool:
    """True for a template that waypoints cannot match with as it stands."""
    return _is_template(text) and not _TEMPLATE.fullmatch(text)


def _source(value: PolicySource) -> _Part:
    return _Part(
        HttpMatch(
            l4=source_match(value),
            request_principals=string_matches(value.request_principals),
            not_request_principals=string_matches(value.not_request_principals),
        ),
        tuple(name for name in value.beyond_l4 if name in _UNKNOWN_SOURCES),
    )


def _condition(value: Condition) -> _Part:
    if not value.beyond_l4:
        return _Part(HttpMatch(l4=condition_match(value)))
    texts = string_matches(tuple(each for each in value.values if isinstance(each, str)))
    not_texts = string_matches(tuple(each for each in value.not_values if isinstance(each, str)))
    if value.key == "request.auth.principal":
        return _Part(HttpMatch(request_principals=texts, not_request_principals=not_texts))
    if found := _HEADER.fullmatch(value.key):
        return _Part(HttpMatch(headers=(ValueMatch((found[1].lower(),), texts, not_texts),)))
    path = _ALIASES.get(value.key, ())
    if found := _CLAIMS.fullmatch(value.key):
        path = tuple(_CLAIM.findall(found[1]))
    if path:
        return _Part(HttpMatch(claims=(ValueMatch(path, texts, not_texts),)))
    return _Part(HttpMatch(), (value.key,))
