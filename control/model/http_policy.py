"""L7 policy: its values. Whoever enforces it sees requests; semantics of the empty cases are those
of `control.model.policy`.

A policy is an OR of rules, a rule an AND of clauses, a clause an OR of matches, a match an AND of
fields, a field an OR of values. Source: Istio's `security.istio.io/v1` AuthorizationPolicy.
"""

from __future__ import annotations

from dataclasses import dataclass

from control.model.policy import Action, Match, StringMatch

NO_L4 = Match()


@dataclass(frozen=True, slots=True)
class PathTemplate:
    """A path with `{*}` (one segment) and `{**}` (any number of them), as Istio writes it."""

    text: str


@dataclass(frozen=True, slots=True)
class ValueMatch:
    """A named value of a request, a header or a claim: one of `values`, and none of `unwanted`.
    A claim's name is a path, for claims in claims; a header's has one part, in lower case."""

    name: tuple[str, ...]
    values: tuple[StringMatch, ...] = ()
    unwanted: tuple[StringMatch, ...] = ()


@dataclass(frozen=True, slots=True)
class HttpMatch:
    """`l4` are the fields that layer 4 knows: the source is the tunnel's. Methods and paths are as
    the waypoint normalises them; hosts are compared without case."""

    l4: Match = NO_L4
    methods: tuple[StringMatch, ...] = ()
    not_methods: tuple[StringMatch, ...] = ()
    paths: tuple[StringMatch | PathTemplate, ...] = ()
    not_paths: tuple[StringMatch | PathTemplate, ...] = ()
    hosts: tuple[StringMatch, ...] = ()
    not_hosts: tuple[StringMatch, ...] = ()
    headers: tuple[ValueMatch, ...] = ()
    request_principals: tuple[StringMatch, ...] = ()
    not_request_principals: tuple[StringMatch, ...] = ()
    claims: tuple[ValueMatch, ...] = ()

    @property
    def is_empty(self) -> bool:
        """True if it asks for nothing: then it never matches."""
        return self == HttpMatch()

    @property
    def is_l4(self) -> bool:
        """True if layer 4 could decide it."""
        return self == HttpMatch(l4=self.l4)


@dataclass(frozen=True, slots=True)
class HttpClause:
    matches_any: tuple[HttpMatch, ...] = ()


@dataclass(frozen=True, slots=True)
class HttpPolicyRule:
    clauses: tuple[HttpClause, ...] = ()


@dataclass(frozen=True, slots=True)
class HttpPolicy:
    """`name` is `namespace/name` of the object. One without rules matches no request: as ALLOW it
    allows nothing."""

    name: str
    action: Action
    rules: tuple[HttpPolicyRule, ...]
    dry_run: bool = False
