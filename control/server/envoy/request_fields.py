"""The part of a policy that only a request has, as permissions.

Methods and paths are those that Envoy made normal (dots, doubled slashes; escaped ones never get
this far). Hosts are compared without case, port and the last dot: `HOST:8080` is no way around a
policy about `host`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from control.model.http_policy import HttpMatch, PathTemplate, ValueMatch
from control.model.policy import StringMatch, StringMatchKind
from control.server.envoy.names import Json, extension

Value = TypeVar("Value")

# As Envoy wants them: an operator is a whole segment, `{**}` the last one. At an empty segment
# Envoy 1.40 does not refuse the template: it ends.
_SEGMENT = r"/(?:[A-Za-z0-9\-._~%!$&'()+,;:@=]+|\{\*\})"
_TEMPLATE = re.compile(rf"(?:{_SEGMENT})*(?:/\{{\*\*\}}|/)?")
_TEMPLATE_MAX = 256  # letters; Envoy's bound
_HEADER = re.compile(r":?[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_SOMETHING: Json = {"safe_regex": {"regex": ".+"}}  # (a constant, not a user's text)


class UnaskableField(Exception):
    """A field that cannot be asked for."""


def asks_token(match: HttpMatch) -> bool:
    """True if it names a token's contents, and nobody verifies tokens."""
    return bool(match.request_principals or match.not_request_principals or match.claims)


def permissions(match: HttpMatch, is_strict: bool) -> list[Json]:
    """All have to hold. What nobody can ask for is left out if `is_strict`; or UnaskableField."""

    asked: list[Callable[[], list[Json]]] = [
        partial(_field, match.methods, match.not_methods, _method),
        partial(_field, match.paths, match.not_paths, _path),
        partial(_field, match.hosts, match.not_hosts, _host),
        *(partial(_named, each) for each in match.headers),
    ]
    parts: list[Json] = []
    for each in asked:
        try:
            parts += each()
        except UnaskableField:
            if not is_strict:
                raise
    return parts


def _named(header: ValueMatch) -> list[Json]:
    (name,) = header.name
    if not _HEADER.fullmatch(name):
        raise UnaskableField(name)
    return _field(header.values, header.unwanted, lambda each: _header(name, each))


def _field(
    wanted: tuple[Value, ...], unwanted: tuple[Value, ...], as_permission: Callable[[Value], Json]
) -> list[Json]:
    parts = []
    if wanted:
        parts.append(_any([as_permission(each) for each in wanted]))
    if unwanted:
        parts.append({"not_rule": _any([as_permission(each) for each in unwanted])})
    return parts


def _any(found: list[Json]) -> Json:
    return found[0] if len(found) == 1 else {"or_rules": {"rules": found}}


def text(match: StringMatch) -> Json:
    """A StringMatcher. An empty prefix or suffix asks for something, as `*` does."""
    if match.kind is StringMatchKind.EXACT:
        return {"exact": match.value}
    if match.kind is StringMatchKind.PRESENCE or not match.value:
        return _SOMETHING
    return {match.kind.name.lower(): match.value}


def _header(name: str, match: StringMatch) -> Json:
    return {"header": {"name": name, "string_match": text(match)}}


def _method(match: StringMatch) -> Json:
    return _header(":method", match)


def _path(match: StringMatch | PathTemplate) -> Json:
    if isinstance(match, PathTemplate):
        return _template(match)
    return {"url_path": {"path": text(match)}}


def _template(template: PathTemplate) -> Json:
    if not _TEMPLATE.fullmatch(template.text) or not 0 < len(template.text) <= _TEMPLATE_MAX:
        raise UnaskableField(template.text)
    pattern = template.text.replace("{**}", "**").replace("{*}", "*")
    kind = "extensions.path.match.uri_template.v3.UriTemplateMatchConfig"
    name = "envoy.path.match.uri_template.uri_template_matcher"
    return {"uri_template": extension(name, kind, path_template=pattern)}


def _host(match: StringMatch) -> Json:
    """The forms of one host: `h`, `h.`, and both with a port."""
    value = match.value.rstrip(".")
    has_port = ":" in value.rpartition("]")[2]
    if match.kind is StringMatchKind.PREFIX or has_port or not value:
        return _authority(text(match))
    if match.kind is StringMatchKind.EXACT:
        ends = [{"exact": value}, {"exact": f"{value}."}]
        ports = [{"prefix": f"{value}:"}, {"prefix": f"{value}.:"}]
    else:
        ends = [{"suffix": value}, {"suffix": f"{value}."}]
        ports = [{"contains": f"{value}:"}, {"contains": f"{value}.:"}]
    return _any([_authority(each) for each in (*ends, *ports)])


def _authority(string_match: Json) -> Json:
    if "safe_regex" not in string_match:
        string_match = {**string_match, "ignore_case": True}
    return {"header": {"name": ":authority", "string_match": string_match}}
