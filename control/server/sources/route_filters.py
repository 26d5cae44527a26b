"""Filters of an HTTPRoute's rule or backend. Pure.

One that we cannot do is no error of the route: its requests are answered with 500, says the API,
and never go on without it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Protocol

from control.model.route import Cors, HeaderChange, Redirect, Rewrite
from control.server.sources.gateways import bounded, one_of, required
from control.server.sources.reader import Reader
from control.server.sources.route_specs import BackendRef, MirrorRef, RouteFilters
from control.server.sources.route_texts import checked_hostname, checked_path, header_name

FILTERS_MAX = 16  # as the CRD
HEADERS_MAX = 16
CORS_MAX = 64
_VALUE_CHARS_MAX = 4096
_CODES = (301, 302, 303, 307, 308)
_SCHEMES = ("http", "https")
_REPEATED = "RequestMirror"  # the one that may stand several times
_HOST = "host"
_ELSEWHERE = ("ExtensionRef", "ExternalAuth")
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+\-.^_`|~]{1,256}")


class ReadBackend(Protocol):
    def __call__(self, backend: Reader, namespace: str, /) -> BackendRef: ...


def read_filters(reader: Reader, namespace: str, read_backend: ReadBackend) -> RouteFilters:
    """Filters of a rule or of a backend of it."""
    found = bounded(reader, "filters", FILTERS_MAX)
    kinds = Counter(each.text("type") for each in found)
    for kind, count in kinds.items():
        if count > 1 and kind not in (_REPEATED, *_ELSEWHERE):
            raise reader.invalid("filters", f"{kind} stands {count} times")
    if kinds["RequestRedirect"] and kinds["URLRewrite"]:
        raise reader.invalid("filters", "RequestRedirect and URLRewrite cannot stand together")
    filters = RouteFilters()
    for each in found:
        filters = _with(filters, each, namespace, read_backend)
    return filters


def _with(
    filters: RouteFilters, found: Reader, namespace: str, read_backend: ReadBackend
) -> RouteFilters:
    kind = one_of(found, "type", (*_FIELDS, _REPEATED, *_ELSEWHERE))
    if kind in _ELSEWHERE:
        return replace(filters, refusal=f"filter {kind}")
    name = "requestMirror" if kind == _REPEATED else _FIELDS[kind][0]
    found.only("type", name)
    part = found.child(name)
    if part is None:
        raise found.invalid(name, "is missing")
    if kind == _REPEATED:
        mirror = _mirror(part, namespace, read_backend)
        return replace(filters, mirrors=(*filters.mirrors, mirror))
    _, field, read = _FIELDS[kind]
    value: object = read(part)
    refusal = filters.refusal
    if isinstance(value, HeaderChange) and _HOST in _names(value):
        refusal = f"filter {kind} on {_HOST} (URLRewrite changes it)"
    return replace(filters, **{field: value, "refusal": refusal})  # type: ignore[arg-type]  # as the table says


def _names(change: HeaderChange) -> list[str]:
    return [*change.remove, *(name for name, _ in (*change.set, *change.add))]


def _mirror(mirror: Reader, namespace: str, read_backend: ReadBackend) -> MirrorRef:
    mirror.only("backendRef", "percent", "fraction")
    backend = mirror.child("backendRef")
    if backend is None:
        raise mirror.invalid("backendRef", "is missing")
    backend.only("group", "kind", "namespace", "name", "port")
    percent, fraction = mirror.number("percent"), mirror.child("fraction")
    if percent is not None and fraction is not None:
        raise mirror.invalid("percent", "cannot stand beside a fraction")
    share = 1.0
    if percent is not None:
        share = percent / 100
    elif fraction is not None:
        fraction.only("numerator", "denominator")
        below = fraction.number("denominator")
        below = 100 if below is None else below
        if below < 1:
            raise fraction.invalid("denominator", "is less than 1")
        share = (fraction.number("numerator") or 0) / below
    if not 0 <= share <= 1:
        raise mirror.invalid("percent", f"{share * 100:g} is not between 0 and 100")
    return MirrorRef(read_backend(backend, namespace), share)


def _headers(part: Reader) -> HeaderChange:
    part.only("set", "add", "remove")
    removed = part.texts("remove")
    if len(removed) > HEADERS_MAX:
        raise part.invalid("remove", f"more than {HEADERS_MAX} entries")
    return HeaderChange(
        remove=tuple(dict.fromkeys(header_name(part, "remove", text) for text, _ in removed)),
        set=_pairs(part, "set"),
        add=_pairs(part, "add"),
    )


def _pairs(part: Reader, key: str) -> tuple[tuple[str, str], ...]:
    """The first alone counts of several with one name, says the API."""
    pairs: dict[str, str] = {}
    for each in bounded(part, key, HEADERS_MAX):
        each.only("name", "value")
        name, value = header_name(each, "name", required(each, "name")), each.text("value")
        if len(value) > _VALUE_CHARS_MAX or any(ord(letter) < 32 for letter in value):
            raise each.invalid("value", "is no value of a header")
        pairs.setdefault(name, value)
    return tuple(pairs.items())


def _redirect(part: Reader) -> Redirect:
    part.only("scheme", "hostname", "path", "port", "statusCode")
    scheme = part.text("scheme")
    if scheme and scheme not in _SCHEMES:
        raise part.invalid("scheme", f"{scheme!r} is not http or https")
    status = part.number("statusCode")
    status = 302 if status is None else status
    if status not in _CODES:
        raise part.invalid("statusCode", f"{status} is none of {', '.join(map(str, _CODES))}")
    path, prefix = _path(part)
    return Redirect(status, scheme, _hostname(part), part.port("port") or 0, path, prefix)


def _rewrite(part: Reader) -> Rewrite:
    part.only("hostname", "path")
    path, prefix = _path(part)
    return Rewrite(_hostname(part), path, prefix)


def _hostname(part: Reader) -> str:
    text = part.text("hostname")
    if not text:
        return ""
    if "*" in text:
        raise part.invalid("hostname", "has to be a whole name")
    return checked_hostname(text, part.where("hostname"), part.line("hostname"))


def _path(part: Reader) -> tuple[str | None, str | None]:
    """The new path, and what the prefix of the match becomes; at most one of them."""
    path = part.child("path")
    if path is None:
        return None, None
    path.only("type", "replaceFullPath", "replacePrefixMatch")
    kind = one_of(path, "type", ("ReplaceFullPath", "ReplacePrefixMatch"))
    field = kind[0].lower() + kind[1:]
    other = "replacePrefixMatch" if field == "replaceFullPath" else "replaceFullPath"
    if other in path or field not in path:
        raise path.invalid(field, f"type {kind} needs it, and it alone")
    text = path.text(field)
    if text:
        text = checked_path(path, field, text)
    return (text or "/", None) if kind == "ReplaceFullPath" else (None, text.rstrip("/") or "/")


def _cors(part: Reader) -> Cors:
    part.only(
        "allowOrigins",
        "allowMethods",
        "allowHeaders",
        "exposeHeaders",
        "maxAge",
        "allowCredentials",
    )
    for key in ("allowOrigins", "allowMethods", "allowHeaders", "exposeHeaders"):
        if len(part.texts(key)) > CORS_MAX:
            raise part.invalid(key, f"more than {CORS_MAX} entries")
    max_age_s = part.number("maxAge")
    if max_age_s is not None and not 1 <= max_age_s <= 2**31 - 1:
        raise part.invalid("maxAge", f"{max_age_s} is no number of seconds")
    return Cors(
        origins=_origins(part),
        methods=_tokens(part, "allowMethods"),
        headers=_tokens(part, "allowHeaders"),
        expose=_tokens(part, "exposeHeaders"),
        max_age_s=Cors().max_age_s if max_age_s is None else max_age_s,
        credentials=part.flag("allowCredentials"),
    )


def _origins(part: Reader) -> tuple[str, ...]:
    found = []
    for text, _ in part.texts("allowOrigins"):
        scheme, mark, host = text.partition("://")
        is_whole = bool(mark) and scheme.isalnum() and bool(host) and "/" not in host
        if text != "*" and not (is_whole and text.count("*") <= 1 and text.isprintable()):
            raise part.invalid("allowOrigins", f"{text!r} is not SCHEME://HOST, with one * at most")
        found.append(text)
    return tuple(dict.fromkeys(found))


def _tokens(part: Reader, key: str) -> tuple[str, ...]:
    found = [text for text, _ in part.texts(key)]
    for text in found:
        if not _TOKEN.fullmatch(text):
            raise part.invalid(key, f"{text!r} is not a name")
    return tuple(dict.fromkeys(found))


_FIELDS: Mapping[str, tuple[str, str, Callable[[Reader], object]]] = {
    "RequestHeaderModifier": ("requestHeaderModifier", "request_headers", _headers),
    "ResponseHeaderModifier": ("responseHeaderModifier", "response_headers", _headers),
    "RequestRedirect": ("requestRedirect", "redirect", _redirect),
    "URLRewrite": ("urlRewrite", "rewrite", _rewrite),
    "CORS": ("cors", "cors", _cors),
}
