"""Waypoints as JSON, for admin pages and for those who read them (`tulle routes`).

Shapes are those of `control.model.route`: fields by name, enums by value, addresses as text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, replace
from types import MappingProxyType
from typing import Any, TypeVar, get_type_hints

import msgspec

from control.kit.errors import WireError
from control.model.address import format_address, parse_address
from control.model.http_policy import (
    HttpClause,
    HttpMatch,
    HttpPolicy,
    HttpPolicyRule,
    PathTemplate,
)
from control.model.identity import SpiffeId, parse_spiffe_id
from control.model.policy import Action, StringMatch
from control.model.route import Backend, BackendEndpoint, Front, Waypoint, WaypointKey

Json = dict[str, Any]
_Value = TypeVar("_Value")
_HINTS = get_type_hints(HttpMatch)
_PATHS = ("paths", "not_paths")
_FRONT = get_type_hints(Front)


def rows_of(waypoints: Iterable[Waypoint]) -> Iterator[Json]:
    """A row for each waypoint, and one for each front and backend of it: none takes long."""
    for value in waypoints:
        whose: Json = {"namespace": value.key.namespace, "name": value.key.name}
        yield {**whose, "account": str(value.account)}
        # Taken now: the mappings may be live, and others have their turn between two rows.
        fronts, backends = _sorted(value.fronts), _sorted(value.backends)
        yield from ({**whose, "front": _front_to_json(each)} for each in fronts)
        yield from ({**whose, "backend": _backend_to_json(each)} for each in backends)


def _sorted(values: Mapping[str, _Value]) -> list[_Value]:
    return [values[name] for name in sorted(values)]


def waypoints_of(rows: Iterable[Json]) -> dict[WaypointKey, Waypoint]:
    """Waypoints of rows in any order. Raises WireError."""
    accounts: dict[WaypointKey, SpiffeId] = {}
    fronts: dict[WaypointKey, dict[str, Front]] = {}
    backends: dict[WaypointKey, dict[str, Backend]] = {}
    try:
        for row in rows:
            key = WaypointKey(str(row["namespace"]), str(row["name"]))
            if "account" in row:
                accounts[key] = parse_spiffe_id(row["account"])
            if "front" in row:
                front = _front_from_json(row["front"])
                fronts.setdefault(key, {})[front.name] = front
            if "backend" in row:
                backend = _backend_from_json(row["backend"])
                backends.setdefault(key, {})[backend.name] = backend
    except (KeyError, TypeError, ValueError, AttributeError, msgspec.ValidationError) as exc:
        raise WireError(f"not a waypoint: {exc!r}") from exc
    return {
        key: Waypoint(
            key,
            account,
            MappingProxyType(fronts.get(key, {})),
            MappingProxyType(backends.get(key, {})),
        )
        for key, account in accounts.items()
    }


def _front_to_json(value: Front) -> Json:
    told: Json = msgspec.to_builtins(replace(value, addresses=()))
    told["addresses"] = [format_address(each) for each in value.addresses]
    return told


def _front_from_json(value: Json) -> Front:
    told = {
        each.name: msgspec.convert(value[each.name], _FRONT[each.name])
        for each in fields(Front)
        if each.name not in ("addresses", "policies")
    }
    told["addresses"] = tuple(map(parse_address, value["addresses"]))
    told["policies"] = tuple(map(_policy_from_json, value["policies"]))
    return Front(**told)


def _policy_from_json(value: Json) -> HttpPolicy:
    rules = tuple(
        HttpPolicyRule(
            tuple(
                HttpClause(tuple(map(_match_from_json, clause["matches_any"])))
                for clause in rule["clauses"]
            )
        )
        for rule in value["rules"]
    )
    action = msgspec.convert(value["action"], Action)
    return HttpPolicy(str(value["name"]), action, rules, bool(value["dry_run"]))


def _match_from_json(value: Json) -> HttpMatch:
    """Field by field: two kinds of paths stand in one field."""
    told: Json = {
        name: tuple(map(_path, value[name]))
        if name in _PATHS
        else msgspec.convert(value[name], hint)
        for name, hint in _HINTS.items()
    }
    return HttpMatch(**told)


def _path(value: Mapping[str, Any]) -> StringMatch | PathTemplate:
    if "text" in value:
        return msgspec.convert(value, PathTemplate)
    return msgspec.convert(value, StringMatch)


def _backend_to_json(value: Backend) -> Json:
    told: Json = msgspec.to_builtins(replace(value, endpoints=()))
    told["endpoints"] = [_endpoint_to_json(each) for each in value.endpoints]
    return told


def _endpoint_to_json(value: BackendEndpoint) -> Json:
    told: Json = msgspec.to_builtins(value)
    told["address"] = format_address(value.address)
    told["identity"] = None if value.identity is None else str(value.identity)
    return told


def _backend_from_json(value: Json) -> Backend:
    found: Backend = msgspec.convert({**value, "endpoints": []}, Backend)
    return replace(found, endpoints=tuple(map(_endpoint_from_json, value["endpoints"])))


def _endpoint_from_json(value: Json) -> BackendEndpoint:
    identity = None if value["identity"] is None else parse_spiffe_id(value["identity"])
    plain = {**value, "identity": None, "address": ""}
    found: BackendEndpoint = msgspec.convert(plain, BackendEndpoint)
    return replace(found, identity=identity, address=parse_address(value["address"]))
