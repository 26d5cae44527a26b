"""HTTPRoute, with the defaults that its CRD would fill in. A field that we do not know is refused:
what it asks for would not happen.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from control.model.route import PathKind, RequestMatch, Retry, TextMatch, TextMatchKind
from control.server.sources.gateways import bounded, one_of, required
from control.server.sources.objects import Meta, RouteObject
from control.server.sources.reader import Reader
from control.server.sources.route_filters import read_filters
from control.server.sources.route_refs import read_backend, read_parent
from control.server.sources.route_specs import BackendRef, RouteRule, RouteSpec
from control.server.sources.route_texts import (
    checked_hostname,
    checked_path,
    checked_regex,
    header_name,
    seconds,
)

# As the CRD.
PARENTS_MAX = 32
HOSTNAMES_MAX = 16
RULES_MAX = 16
MATCHES_MAX = 64  # in a rule
ALL_MATCHES_MAX = 128  # in a route
BACKENDS_MAX = 16
NAMED_VALUES_MAX = 16
QUERY_CHARS_MAX = 1024
HEADER_CHARS_MAX = 4096
CODES_MAX = 64

_TEXT_KINDS = {"Exact": TextMatchKind.EXACT, "RegularExpression": TextMatchKind.REGEX}
_PATH_KINDS = {
    "Exact": PathKind.EXACT,
    "PathPrefix": PathKind.PREFIX,
    "RegularExpression": PathKind.REGEX,
}
_METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH")
_QUERY_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+\-.^_`|~]{1,256}")


def read_http_route(document: Reader, meta: Meta) -> RouteObject:
    return read_route(document, meta, _rule)


def read_route(
    document: Reader, meta: Meta, read_rule: Callable[[Reader, str], RouteRule]
) -> RouteObject:
    """A route of any kind whose rules become those of HTTP. `read_rule` gets the namespace too."""
    document.only("apiVersion", "kind", "metadata", "spec", "status")
    spec = document.part("spec")
    spec.only("parentRefs", "hostnames", "rules")
    namespace = meta.namespace
    parents = bounded(spec, "parentRefs", PARENTS_MAX)
    hostnames = spec.texts("hostnames")
    if len(hostnames) > HOSTNAMES_MAX:
        raise spec.invalid("hostnames", f"{len(hostnames)} entries, more than {HOSTNAMES_MAX}")
    return RouteObject(
        meta,
        RouteSpec(
            parents=tuple(read_parent(each, namespace) for each in parents),
            hostnames=tuple(
                checked_hostname(text, spec.where("hostnames"), line) for text, line in hostnames
            ),
            rules=_rules(spec, namespace, read_rule),
        ),
    )


def _rules(
    spec: Reader, namespace: str, read_rule: Callable[[Reader, str], RouteRule]
) -> tuple[RouteRule, ...]:
    if "rules" not in spec:
        return (RouteRule(),)
    rules = tuple(read_rule(each, namespace) for each in bounded(spec, "rules", RULES_MAX))
    if sum(len(each.matches) for each in rules) > ALL_MATCHES_MAX:
        raise spec.invalid("rules", f"more than {ALL_MATCHES_MAX} matches")
    names = [each.name for each in rules if each.name]
    if len(set(names)) < len(names):
        raise spec.invalid("rules", "two rules have one name")
    return rules


def _rule(rule: Reader, namespace: str) -> RouteRule:
    rule.only("name", "matches", "filters", "backendRefs", "timeouts", "retry")
    matches = tuple(_match(each) for each in bounded(rule, "matches", MATCHES_MAX))
    matches = matches or (RequestMatch(),)
    filters = read_filters(rule, namespace, read_backend)
    backends = bounded(rule, "backendRefs", BACKENDS_MAX)
    if filters.redirect is not None and backends:
        raise rule.invalid("backendRefs", "cannot stand beside a RequestRedirect")
    by_prefix = (filters.redirect is not None and filters.redirect.prefix is not None) or (
        filters.rewrite is not None and filters.rewrite.prefix is not None
    )
    if by_prefix and any(each.path_kind is not PathKind.PREFIX for each in matches):
        raise rule.invalid("filters", "ReplacePrefixMatch needs matches of type PathPrefix")
    timeouts = rule.part("timeouts")
    timeouts.only("request", "backendRequest")
    timeout_s, try_s = seconds(timeouts, "request"), seconds(timeouts, "backendRequest")
    if timeout_s and (try_s or 0) > timeout_s:
        raise timeouts.invalid("backendRequest", "is longer than the request's")
    return RouteRule(
        name=rule.text("name"),
        matches=matches,
        filters=filters,
        backends=tuple(read_rule_backend(each, namespace) for each in backends),
        retry=_retry(rule),
        timeout_s=timeout_s,
        try_timeout_s=try_s,
    )


def read_rule_backend(backend: Reader, namespace: str) -> BackendRef:
    """Filters may stand on a backend as well; of those, ones that change headers."""
    filters = read_filters(backend, namespace, read_backend)
    refusal = filters.refusal
    if filters.redirect or filters.rewrite or filters.mirrors or filters.cors:
        refusal = refusal or "only filters on headers can stand on a backend"
    return read_backend(
        backend,
        namespace,
        request_headers=filters.request_headers,
        response_headers=filters.response_headers,
        refusal=refusal,
    )


def _match(match: Reader) -> RequestMatch:
    match.only("path", "headers", "queryParams", "method")
    path = match.part("path")
    path.only("type", "value")
    kind = _PATH_KINDS[one_of(path, "type", _PATH_KINDS, "PathPrefix")]
    text = path.text("value") or "/"
    if kind is PathKind.REGEX:
        text = checked_regex(path, "value", text)
    else:
        text = checked_path(path, "value", text)
        if kind is PathKind.PREFIX:
            text = text.rstrip("/") or "/"
    method = match.text("method")
    if method and method not in _METHODS:
        raise match.invalid("method", f"{method!r} is none of {', '.join(_METHODS)}")
    query = [_named(each, False) for each in bounded(match, "queryParams", NAMED_VALUES_MAX)]
    return RequestMatch(text, kind, method, read_header_matches(match), _first(query))


def read_header_matches(match: Reader) -> tuple[TextMatch, ...]:
    """All headers that a match asks for."""
    found = bounded(match, "headers", NAMED_VALUES_MAX)
    return _first([_named(each, True) for each in found])


def _named(found: Reader, is_header: bool) -> TextMatch:
    found.only("type", "name", "value")
    kind = _TEXT_KINDS[one_of(found, "type", _TEXT_KINDS, "Exact")]
    name, value = required(found, "name"), required(found, "value")
    if len(value) > (HEADER_CHARS_MAX if is_header else QUERY_CHARS_MAX):
        raise found.invalid("value", "is too long")
    if is_header:
        name = header_name(found, "name", name)
    elif not _QUERY_NAME.fullmatch(name):
        raise found.invalid("name", f"{name!r} is not the name of a query parameter")
    if kind is TextMatchKind.REGEX:
        value = checked_regex(found, "value", value)
    return TextMatch(name, value, kind)


def _first(found: list[TextMatch]) -> tuple[TextMatch, ...]:
    """The first alone counts of several with one name, says the API."""
    return tuple({each.name: each for each in reversed(found)}[name] for name in _names(found))


def _names(found: list[TextMatch]) -> list[str]:
    return list(dict.fromkeys(each.name for each in found))


def _retry(rule: Reader) -> Retry | None:
    if "retry" not in rule:
        return None
    retry = rule.part("retry")
    retry.only("codes", "attempts", "backoff")
    codes = []
    for code in retry.numbers("codes"):
        if not 400 <= code <= 599:
            raise retry.invalid("codes", f"{code} is not between 400 and 599")
        codes.append(code)
    if len(codes) > CODES_MAX:
        raise retry.invalid("codes", f"more than {CODES_MAX} entries")
    attempts, backoff_s = retry.number("attempts"), seconds(retry, "backoff")
    if attempts is not None and not 0 <= attempts <= 100:
        raise retry.invalid("attempts", f"{attempts} is not between 0 and 100")
    default = Retry()
    return Retry(
        attempts=default.attempts if attempts is None else attempts,
        codes=tuple(codes),
        backoff_s=backoff_s or default.backoff_s,
    )
