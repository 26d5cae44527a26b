"""The shape of a saved dump, and of pages: what is damaged is an error and no traceback. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from control.kit.errors import ConfigError

_NAMED = ("namespace", "name")
# Lists of objects, and the keys that the views rely on.
_AGENT = {"pods": _NAMED, "maps": ("name",)}
_ZTUNNEL = {
    "workloads": ("uid",),
    "services": (*_NAMED, "hostname"),
    "policies": (),
    "certificates": (),
}
_CONTROL = {"pods": _NAMED, "workloads": ("uid",), "services": (*_NAMED, "hostname")}
_CONTROL |= {"policies": (), "routes": _NAMED, "waypoints": _NAMED}
_CHECK = ("code", "category", "description", "result", "error")
# Pages that are lists, by the name of their part.
_LISTS = _CONTROL | {"check": _CHECK, "problems": (), "notes": ()}


def check_dump(value: dict[str, Any], where: str) -> None:
    """ConfigError unless the commands can read `value`."""
    for key in ("nodes", "control", "labels"):
        _expect(isinstance(value.get(key), dict), f"{where}: {key}")
    _lists(value["control"], _CONTROL, f"{where}: control")
    _expect(isinstance(value["control"].get("status") or {}, dict), f"{where}: control.status")
    for name, parts in value["nodes"].items():
        at = f"{where}: nodes.{name}"
        _expect(isinstance(parts, dict), at)
        _objects(parts.get("check"), _CHECK, f"{at}.check")
        if parts.get("agent"):
            _lists(parts["agent"], _AGENT, f"{at}.agent")
        if parts.get("ztunnel"):
            check_ztunnel(parts["ztunnel"], f"{at}.ztunnel")


def check_page(part: str, value: Any, where: str) -> None:
    """ConfigError unless `value` is that page of a process; what listens may be none of ours."""
    try:
        if part == "ztunnel":
            check_ztunnel(value, where)
        elif part == "agent":
            _lists(value, _AGENT, where)
        elif part in _LISTS:
            _expect(isinstance(value, list), where)
            _objects(value, _LISTS[part], where)
        else:
            _expect(isinstance(value, dict), where)
    except ConfigError as exc:
        raise ConfigError(f"{where}: not an answer of this version of Tulle") from exc


def check_ztunnel(value: Any, where: str) -> None:
    _lists(value, _ZTUNNEL, where)
    states = value.get("workloadState") or {}
    _expect(isinstance(states, dict), f"{where}.workloadState")
    for uid, state in states.items():
        at = f"{where}.workloadState.{uid}"
        _expect(isinstance(state, dict) and isinstance(state.get("info") or {}, dict), at)
        held = state.get("connections") or {}
        _lists(held, {"inbound": (), "outbound": ()}, f"{at}.connections")


def _lists(value: Any, wanted: dict[str, Any], where: str) -> None:
    _expect(isinstance(value, dict), where)
    for key, keys in wanted.items():
        _objects(value.get(key), keys, f"{where}.{key}")


def _objects(value: Any, keys: Iterable[str], where: str) -> None:
    _expect(isinstance(value or [], list), where)
    for item in value or []:
        _expect(isinstance(item, dict) and all(key in item for key in keys), where)


def _expect(holds: bool, where: str) -> None:
    if not holds:
        raise ConfigError(f"{where}: not in the form of `tulle dump`; the file is damaged")
