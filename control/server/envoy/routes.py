"""The routes of a front's requests: one resource, found by its scope. Its policies ride on it, so
that a change of a policy is in force with the next request, and nothing is drained."""

from __future__ import annotations

from control.model.policy import Action
from control.model.route import Front, HttpRule
from control.server.envoy import actions, letters, matches, policy
from control.server.envoy.names import FRONT_HEADER, REQUEST_ALLOW, REQUEST_DENY, Json

ANY_HOST = "*"
_EVERYTHING = {"prefix": "/"}


def scope(front: Front) -> Json:
    """The key's two parts are what requests are looked up by; tunnels are by one."""
    part = {"string_key": front.name}
    return {
        "name": scope_name(front.name),
        "key": {"fragments": [part, part]},
        "route_configuration_name": front.name,
    }


def scope_name(front: str) -> str:
    return f"requests|{front}"


def configuration(front: Front) -> Json:
    """404 for whatever no rule matches, inside the front's policies: 403 comes first."""
    policies = {
        REQUEST_DENY: policy.rules(front, Action.DENY),
        REQUEST_ALLOW: policy.rules(front, Action.ALLOW),
    }
    return {
        "name": front.name,
        "ignore_port_in_host_matching": True,
        "request_headers_to_remove": [FRONT_HEADER],
        "virtual_hosts": [
            {
                "name": host,
                "domains": [host],
                "typed_per_filter_config": policies,
                "routes": routes,
            }
            for host, routes in _by_host(front)
        ],
    }


def refusal(front: Front) -> Json:
    """For a front that Envoy cannot be told about: nobody is dialled, so nobody is judged."""
    routes = [{"name": "unspeakable", "match": _EVERYTHING, "direct_response": {"status": 500}}]
    open_ = {REQUEST_DENY: policy.no_rules(), REQUEST_ALLOW: policy.no_rules()}
    host = {"name": ANY_HOST, "domains": [ANY_HOST], "typed_per_filter_config": open_}
    return {"name": front.name, "virtual_hosts": [{**host, "routes": routes}]}


def _by_host(front: Front) -> list[tuple[str, list[Json]]]:
    if front.rules is None:
        default = {"name": "default", "match": _EVERYTHING, **actions.to(front.backend)}
        return [(ANY_HOST, [default])]
    routes = [(rule, _route(rule, front)) for rule in front.rules]
    hosts = dict.fromkeys(letters.host(each.lower()) for rule in front.rules for each in rule.hosts)
    nothing = {"name": "no rule", "match": _EVERYTHING, "direct_response": {"status": 404}}
    return [
        (host, [*(route for rule, route in routes if _covers(rule, host)), nothing])
        for host in dict.fromkeys([*hosts, ANY_HOST])
    ]


def _route(rule: HttpRule, front: Front) -> Json:
    match = matches.of_request(rule.match)
    return {"name": rule.name, "match": match, **actions.of_rule(rule, front)}


def _covers(rule: HttpRule, host: str) -> bool:
    """Is the rule for requests that are for `host`, or for any that this name with a star means?"""
    for each in rule.hosts:
        name = each.lower()
        if name == host or (name.startswith("*.") and host.endswith(name[1:])):
            return True
    return not rule.hosts
