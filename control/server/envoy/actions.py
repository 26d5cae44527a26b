"""The action of a rule: where a request goes, and what is changed about it."""

from __future__ import annotations

from control.kit import re2
from control.model.route import (
    Cors,
    Destination,
    Front,
    HeaderChange,
    HttpRule,
    Mirror,
    PathKind,
    Redirect,
    RequestMatch,
    Retry,
)
from control.server.envoy import letters
from control.server.envoy.letters import Unspeakable
from control.server.envoy.names import CORS, NOWHERE, Json, any_of, extension, seconds

_STATUS = {
    301: "MOVED_PERMANENTLY",
    302: "FOUND",
    303: "SEE_OTHER",
    307: "TEMPORARY_REDIRECT",
    308: "PERMANENT_REDIRECT",
}
_PORTS = {"http": 80, "https": 443}
_SHARES = 1_000_000
_WEIGHTS_MAX = (1 << 32) - 1  # in sum
_NEVER_SENT = "connect-failure,refused-stream,reset-before-request"
_MORE_TRIES = f"{_NEVER_SENT},unavailable,cancelled"
_BACKOFF_GROWTH = 10  # the longest pause, in times of the first
_BACKOFF_MIN_S = 0.001
_OTHER_HOSTS = 5  # draws that a retry makes to find an endpoint that it has not tried
DEFAULT_RETRY = {"retry_on": _NEVER_SENT, "num_retries": 2}


def of_rule(rule: HttpRule, front: Front) -> Json:
    """The fields of a route beside its match. Unspeakable: Envoy has no word for it."""
    made: Json = {
        **_changes("request", rule.request_headers),
        **_changes("response", rule.response_headers),
    }
    if rule.cors is not None:
        made["typed_per_filter_config"] = {CORS: _cors(rule.cors)}
    if rule.redirect is not None:
        return made | {"redirect": _redirect(rule.redirect, rule.match, front)}
    targets = _destinations(rule.destinations)
    if not targets:
        return made | {"direct_response": {"status": 500}}
    route: Json = {
        **targets,
        # A destination that cannot be had is a cluster that is not there.
        "cluster_not_found_response_code": "INTERNAL_SERVER_ERROR",
        "timeout": seconds(rule.timeout_s or 0),
        "retry_policy": _retry(rule.retry, rule.try_timeout_s),
    }
    if rule.rewrite is not None:
        if rule.rewrite.hostname:
            route["host_rewrite_literal"] = letters.host(rule.rewrite.hostname)
        route |= _new_path(rule.match, rule.rewrite.path, rule.rewrite.prefix)
    if rule.mirrors:
        route["request_mirror_policies"] = [_mirror(each) for each in rule.mirrors]
    return made | {"route": route}


def to(backend: str) -> Json:
    """Forwarding that nobody has a rule for."""
    route = {
        "cluster": backend or NOWHERE,
        "cluster_not_found_response_code": "INTERNAL_SERVER_ERROR",
        "timeout": "0s",
        "retry_policy": _other_hosts(DEFAULT_RETRY),
    }
    return {"route": route}


def _destinations(destinations: tuple[Destination, ...]) -> Json:
    some = [each for each in destinations if each.weight > 0]
    if not some:
        return {}
    if sum(each.weight for each in some) > _WEIGHTS_MAX:
        raise Unspeakable("weights beyond any sum")
    if len(some) == 1 and not _has_changes(some[0]):
        return {"cluster": some[0].backend or NOWHERE}
    shares = [
        {
            "name": each.backend or NOWHERE,
            "weight": each.weight,
            **_changes("request", each.request_headers),
            **_changes("response", each.response_headers),
        }
        for each in some
    ]
    return {"weighted_clusters": {"clusters": shares}}


def _has_changes(destination: Destination) -> bool:
    return destination.request_headers != HeaderChange() or (
        destination.response_headers != HeaderChange()
    )


def _changes(side: str, change: HeaderChange) -> Json:
    """`side`: request or response. Envoy removes first, then adds in order."""
    made: Json = {}
    if change.remove:
        made[f"{side}_headers_to_remove"] = [letters.changeable(each) for each in change.remove]
    values = [_header(*each, "OVERWRITE_IF_EXISTS_OR_ADD") for each in change.set]
    values += [_header(*each, "APPEND_IF_EXISTS_OR_ADD") for each in change.add]
    if values:
        made[f"{side}_headers_to_add"] = values
    return made


def _header(name: str, value: str, action: str) -> Json:
    literal = letters.value(value).replace("%", "%%")  # a percent sign begins a variable of Envoy's
    return {
        "header": {"key": letters.changeable(name), "value": literal},
        "append_action": action,
        "keep_empty_value": True,
    }


def _redirect(redirect: Redirect, match: RequestMatch, front: Front) -> Json:
    if redirect.status not in _STATUS:
        raise Unspeakable(f"no status of a redirect: {redirect.status}")
    made: Json = {"response_code": _STATUS[redirect.status]}
    if redirect.scheme:
        made["scheme_redirect"] = redirect.scheme
    if redirect.hostname:
        made["host_redirect"] = letters.host(redirect.hostname)
    if port := _port(redirect, front):
        made["port_redirect"] = port
    return made | _new_path(match, redirect.path, redirect.prefix, is_redirect=True)


def _port(redirect: Redirect, front: Front) -> int:
    """0: as Envoy does, which leaves out a scheme's own."""
    if redirect.port:
        return 0 if redirect.port == _PORTS.get(redirect.scheme or "http") else redirect.port
    if redirect.scheme or not redirect.hostname:
        return 0
    return 0 if front.port == _PORTS["http"] else front.port


def _new_path(
    match: RequestMatch, path: str | None, prefix: str | None, is_redirect: bool = False
) -> Json:
    letters.value(path or prefix or "")
    if path is not None:
        if is_redirect:
            return {"path_redirect": path or "/"}
        return {"regex_rewrite": _rewritten("/.*", path or "/")}
    if prefix is None:
        return {}
    if match.path_kind is not PathKind.PREFIX:
        raise Unspeakable("a prefix is replaced where a prefix is matched")
    old, new = match.path.rstrip("/"), prefix.rstrip("/")
    if new:
        # Behind "/" the whole path follows, behind "/a" the rest: both begin with a slash.
        return {"prefix_rewrite": new if old else f"{new}/"}
    return {"regex_rewrite": _rewritten(f"^{re2.quoted(old)}/*(.*)", "/")} if old else {}


def _rewritten(pattern: str, start: str) -> Json:
    """The part in parentheses, if the pattern has one, stays behind `start`."""
    rest = r"\1" if "(" in pattern else ""
    return {"pattern": {"regex": pattern}, "substitution": start.replace("\\", r"\\") + rest}


def _retry(retry: Retry | None, try_timeout_s: float | None) -> Json:
    made: Json = dict(DEFAULT_RETRY)
    if retry is not None:
        backoff_s = max(retry.backoff_s, _BACKOFF_MIN_S)
        made = {
            "retry_on": f"{_MORE_TRIES},retriable-status-codes",
            "num_retries": retry.attempts,
            "retriable_status_codes": list(retry.codes),
            "retry_back_off": {
                "base_interval": seconds(backoff_s),
                "max_interval": seconds(backoff_s * _BACKOFF_GROWTH),
            },
        }
    if try_timeout_s:
        made["per_try_timeout"] = seconds(try_timeout_s)
    return _other_hosts(made)


def _other_hosts(policy: Json) -> Json:
    name = "envoy.retry_host_predicates.previous_hosts"
    kind = "extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
    return policy | {
        "retry_host_predicate": [extension(name, kind)],
        "host_selection_retry_max_attempts": _OTHER_HOSTS,
    }


def _mirror(mirror: Mirror) -> Json:
    share = {"numerator": round(_SHARES * min(max(mirror.share, 0), 1)), "denominator": "MILLION"}
    return {"cluster": mirror.backend or NOWHERE, "runtime_fraction": {"default_value": share}}


def _cors(cors: Cors) -> Json:
    made: Json = {
        "allow_origin_string_match": [_origin(each) for each in cors.origins],
        "max_age": str(cors.max_age_s),
        "allow_credentials": cors.credentials,
        "forward_not_matching_preflights": False,
    }
    for key, names in (
        ("allow_methods", cors.methods),
        ("allow_headers", cors.headers),
        ("expose_headers", cors.expose),
    ):
        if names:
            made[key] = ",".join(names)
    return any_of("extensions.filters.http.cors.v3.CorsPolicy", **made)


def _origin(origin: str) -> Json:
    """A star is any text without a slash."""
    if "*" not in origin:
        return {"exact": origin}
    if origin == "*":
        return {"safe_regex": {"regex": ".*"}}
    return {"safe_regex": {"regex": "[^/]*".join(re2.quoted(part) for part in origin.split("*"))}}
