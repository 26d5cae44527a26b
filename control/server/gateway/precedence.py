"""Order in which the matches of several routes are tried, by the text of the Gateway API. Pure.

Exact path, then the longest prefix, a method, most headers, most query parameters; then the oldest
route, its name, and the order of its rules. Where patterns stand among paths the API leaves open:
here between exact ones and prefixes, the longest first.
"""

from __future__ import annotations

from typing import TypeAlias

from control.model.route import PathKind, RequestMatch
from control.server.sources.grpc_routes import GRPC_ROUTE
from control.server.sources.objects import Meta

Rank: TypeAlias = tuple[int, int, bool, int, int, tuple[bool, str], str, tuple[int, int]]

_KINDS = {PathKind.EXACT: 0, PathKind.REGEX: 1, PathKind.PREFIX: 2}
# The service of a call says more than its method: /SERVICE is a prefix, a method alone a pattern.
_GRPC_KINDS = {PathKind.EXACT: 0, PathKind.PREFIX: 1, PathKind.REGEX: 2}
_ALL = 3  # a GRPCRoute that asks for neither


def rank(match: RequestMatch, route: Meta, place: tuple[int, int]) -> Rank:
    """Sort key, first tried first. `place`: the numbers of the rule and of the match in it."""
    return (
        _kind(match, route),
        -len(match.path),
        not match.method,
        -len(match.headers),
        -len(match.query),
        age(route),
        f"{route.namespace}/{route.name}",
        place,
    )


def _kind(match: RequestMatch, route: Meta) -> int:
    if route.key.kind != GRPC_ROUTE:
        return _KINDS[match.path_kind]
    is_all = match.path_kind is PathKind.PREFIX and match.path == "/"
    return _ALL if is_all else _GRPC_KINDS[match.path_kind]


def age(route: Meta) -> tuple[bool, str]:
    """Oldest first; one that never said when it was made is the youngest."""
    return not route.created, route.created
