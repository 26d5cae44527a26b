"""One HTTP request against a front's rules and policies: the words of an answer for people, and the
measure that a proxy's answers are held against in tests. Pure; the proxy decides in earnest.

Regular expressions are RE2 in the proxy and Python's here: the same for what both understand.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from control.model.http_policy import HttpClause, HttpMatch, HttpPolicy, PathTemplate, ValueMatch
from control.model.policy import Action, Connection, StringMatch
from control.model.route import Front, HttpRule, PathKind, RequestMatch, TextMatch, TextMatchKind

_SEGMENT, _REST = "{*}", "{**}"
_HEX = re.compile(r"%([0-9A-Fa-f]{2})")
_UNRESERVED = re.compile(r"[A-Za-z0-9\-._~]")
_NOTHING: Mapping[str, str] = MappingProxyType({})


class BadPath(ValueError):
    """A path that two readers could take for two: it is refused, never normalised."""


@dataclass(frozen=True, slots=True)
class RequestFacts:
    """As the waypoint sees it: `path` normalised and without its query, `host` without its port and
    in lower case, header names in lower case, several values of one joined by commas."""

    connection: Connection
    method: str = "GET"
    host: str = ""
    path: str = "/"
    headers: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    query: Mapping[str, str] = field(default_factory=lambda: _NOTHING)


@dataclass(frozen=True, slots=True)
class RequestVerdict:
    """`policy` is the one that decided; "" if none asks for anything, or no ALLOW matched."""

    allowed: bool
    policy: str = ""
    dry_run: tuple[str, ...] = ()  # policies that would have refused it

    def __str__(self) -> str:
        if self.allowed:
            return f"allowed by {self.policy}" if self.policy else "allowed: no policy applies"
        return f"denied by {self.policy}" if self.policy else "denied: no ALLOW policy matches"


def normal_path(raw: str) -> str:
    """A path as the waypoint compares it: no query, no dot segments, no doubled slashes, letters
    that need no escape unescaped. BadPath: an escaped slash, or a way above the root."""
    path = raw.partition("#")[0].partition("?")[0]
    if re.search(r"%2f|%5c", path, re.IGNORECASE) or "\\" in path:
        raise BadPath(f"an escaped slash in {raw!r}")
    path = _HEX.sub(_unescaped, path)
    if not path.startswith("/"):
        raise BadPath(f"no path: {raw!r}")
    kept: list[str] = []
    segments = re.sub("/+", "/", path).split("/")[1:]
    for segment in segments:
        if segment == "..":
            if not kept:
                raise BadPath(f"above the root: {raw!r}")
            kept.pop()
        elif segment != ".":
            kept.append(segment)
    is_folder = segments[-1] in (".", "..") and kept
    return "/" + "/".join(kept) + ("/" if is_folder else "")


def _unescaped(found: re.Match[str]) -> str:
    letter = chr(int(found[1], 16))
    return letter if _UNRESERVED.fullmatch(letter) else found[0].upper()


def find_rule(front: Front, request: RequestFacts) -> HttpRule | None:
    """The first rule that matches; None: no rule does, or the front has none."""
    for rule in front.rules or ():
        if _host_matches(rule.hosts, request.host) and matches(rule.match, request):
            return rule
    return None


def _host_matches(hosts: tuple[str, ...], host: str) -> bool:
    return not hosts or any(
        host == each or (each.startswith("*.") and host.endswith(each[1:]) and host != each[1:])
        for each in hosts
    )


def matches(match: RequestMatch, request: RequestFacts) -> bool:
    return (
        _path_matches(match, request.path)
        and match.method in ("", request.method)
        and all(_text_matches(each, request.headers) for each in match.headers)
        and all(_text_matches(each, request.query) for each in match.query)
    )


def _path_matches(match: RequestMatch, path: str) -> bool:
    match match.path_kind:
        case PathKind.EXACT:
            return path == match.path
        case PathKind.REGEX:
            return re.fullmatch(match.path, path) is not None
        case PathKind.PREFIX:
            prefix = match.path.rstrip("/")
            return path == prefix or path.startswith(f"{prefix}/")


def _text_matches(wanted: TextMatch, given: Mapping[str, str]) -> bool:
    found = given.get(wanted.name)
    if found is None:
        return False
    if wanted.kind is TextMatchKind.REGEX:
        return re.fullmatch(wanted.value, found) is not None
    return found == wanted.value


def authorize(policies: Iterable[HttpPolicy], request: RequestFacts) -> RequestVerdict:
    """DENY before ALLOW; without an ALLOW everybody may."""
    enforced = [each for each in policies if not each.dry_run]
    tried = tuple(each for each in policies if each.dry_run)
    for policy in enforced:
        if policy.action is Action.DENY and policy_matches(policy, request):
            return RequestVerdict(False, policy.name, _would_refuse(tried, request))
    allows = [each for each in enforced if each.action is Action.ALLOW]
    for policy in allows:
        if policy_matches(policy, request):
            return RequestVerdict(True, policy.name, _would_refuse(tried, request))
    return RequestVerdict(not allows, "", _would_refuse(tried, request))


def _would_refuse(policies: tuple[HttpPolicy, ...], request: RequestFacts) -> tuple[str, ...]:
    denies = [each for each in policies if each.action is Action.DENY]
    allows = [each for each in policies if each.action is Action.ALLOW]
    found = [each.name for each in denies if policy_matches(each, request)]
    if allows and not any(policy_matches(each, request) for each in allows):
        found += [each.name for each in allows]
    return tuple(found)


def policy_matches(policy: HttpPolicy, request: RequestFacts) -> bool:
    """Claims and request principals are of tokens, which nobody reads yet: what asks for one allows
    nothing, and does not keep a DENY from denying."""
    is_deny = policy.action is Action.DENY
    return any(
        all(_clause_matches(clause, request, is_deny) for clause in rule.clauses)
        for rule in policy.rules
    )


def _clause_matches(clause: HttpClause, request: RequestFacts, is_deny: bool) -> bool:
    return not clause.matches_any or any(
        _match_holds(match, request, is_deny) for match in clause.matches_any
    )


def _match_holds(match: HttpMatch, request: RequestFacts, is_deny: bool) -> bool:
    asks_for_token = match.claims or match.request_principals or match.not_request_principals
    if match.is_empty or (asks_for_token and not is_deny):
        return False
    if not match.l4.is_empty and not match.l4.matches(request.connection):
        return False
    return (
        _one_of(match.methods, match.not_methods, request.method)
        and _one_of(_folded(match.hosts), _folded(match.not_hosts), request.host)
        and _one_path(match.paths, match.not_paths, request.path)
        and all(_value_holds(each, request.headers) for each in match.headers)
    )


def _folded(values: tuple[StringMatch, ...]) -> tuple[StringMatch, ...]:
    return tuple(StringMatch(each.kind, each.value.lower()) for each in values)


def _one_of(wanted: tuple[StringMatch, ...], unwanted: tuple[StringMatch, ...], text: str) -> bool:
    if wanted and not any(each.matches(text) for each in wanted):
        return False
    return not any(each.matches(text) for each in unwanted)


def _one_path(
    wanted: tuple[StringMatch | PathTemplate, ...],
    unwanted: tuple[StringMatch | PathTemplate, ...],
    path: str,
) -> bool:
    if wanted and not any(_path_is(each, path) for each in wanted):
        return False
    return not any(_path_is(each, path) for each in unwanted)


def _path_is(wanted: StringMatch | PathTemplate, path: str) -> bool:
    if isinstance(wanted, StringMatch):
        return wanted.matches(path)
    pattern = re.escape(wanted.text)
    pattern = pattern.replace(re.escape(_REST), ".*").replace(re.escape(_SEGMENT), "[^/]+")
    return re.fullmatch(pattern, path) is not None


def _value_holds(wanted: ValueMatch, given: Mapping[str, str]) -> bool:
    found = given.get(wanted.name[0])
    if wanted.values and (found is None or not any(each.matches(found) for each in wanted.values)):
        return False
    return found is None or not any(each.matches(found) for each in wanted.unwanted)
