"""Field ownership: server-side apply, merge patches, and the managedFields that both leave.

Simplified, and true for what the mesh writes: maps are merged key by key; lists are atomic, but
for `conditions`, which are merged by `type`. A path is a tuple of `f:name` and `k:{"type":"X"}`.
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from typing import Any

from tests.support.kube.status import ApiRefusal, Json, refusal

Path = tuple[str, ...]

UNOWNED = {"f:apiVersion", "f:kind", "f:status"}
UNOWNED_METADATA = {
    "f:name",
    "f:namespace",
    "f:uid",
    "f:resourceVersion",
    "f:generation",
    "f:creationTimestamp",
    "f:managedFields",
    "f:deletionTimestamp",
}


@dataclass(slots=True)
class Claim:
    """The fields of one manager by one operation on one subresource."""

    manager: str
    operation: str
    subresource: str
    api_version: str
    time: str
    paths: set[Path]

    @property
    def key(self) -> tuple[str, str, str]:
        return (self.manager, self.operation, self.subresource)

    def shown(self) -> Json:
        tree: Json = {}
        for path in sorted(self.paths):
            node = tree
            for each in path:
                if each.startswith("k:") and each not in node:
                    node[each] = {".": {}}
                node = node.setdefault(each, {})
        shown = {
            "manager": self.manager,
            "operation": self.operation,
            "apiVersion": self.api_version,
            "time": self.time,
            "fieldsType": "FieldsV1",
            "fieldsV1": tree,
        }
        return {**shown, "subresource": self.subresource} if self.subresource else shown


def leaves(value: Json, subresource: str) -> dict[Path, Any]:
    """Path → value of everything in an object that can have an owner."""
    found: dict[Path, Any] = {}
    _collect(value, (), found)
    if subresource:
        return {path: each for path, each in found.items() if path[0] == f"f:{subresource}"}
    return {
        path: each
        for path, each in found.items()
        if path[0] not in UNOWNED
        and not (path[0] == "f:metadata" and (len(path) < 2 or path[1] in UNOWNED_METADATA))
    }


def _collect(value: Any, at: Path, found: dict[Path, Any]) -> None:
    if isinstance(value, dict) and (value or not at):
        for key, each in value.items():
            _collect(each, (*at, f"f:{key}"), found)
    elif isinstance(value, list) and at[-1] == "f:conditions":
        for each in value:
            _collect(each, (*at, _key(each)), found)
    else:
        found[at] = value


def _key(condition: Json) -> str:
    return "k:" + json.dumps({"type": condition["type"]}, separators=(",", ":"))


def merged(value: Any, patch: Any) -> Any:
    """A merge patch (RFC 7386)."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result = dict(value) if isinstance(value, dict) else {}
    for key, each in patch.items():
        if each is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), each)
    return result


def applied(old: Json, claims: list[Claim], mine: Claim, config: Json, force: bool) -> Json:
    """The object after `config` was applied; `claims` are changed in place. Raises ApiRefusal."""
    wanted = leaves(config, mine.subresource)
    there = leaves(old, mine.subresource)
    mine.paths = set(wanted)
    _check_conflicts(wanted, there, claims, mine, force)
    before = next((each.paths for each in claims if each.key == mine.key), set())
    others = {path for each in claims if each.key != mine.key for path in each.paths}
    new = copy.deepcopy(old)
    for path in sorted(before - set(wanted) - others):  # a condition's type is its last field
        _remove(new, path)
    for path, value in wanted.items():
        _put(new, path, copy.deepcopy(value))
    claims[:] = [each for each in claims if each.key != mine.key and each.paths]
    claims.append(mine)
    return new


def _check_conflicts(
    wanted: dict[Path, Any], there: dict[Path, Any], claims: list[Claim], mine: Claim, force: bool
) -> None:
    causes = []
    for other in claims:
        if other.key == mine.key:
            continue
        lost = {each for each in other.paths & set(wanted) if there.get(each) != wanted[each]}
        if force:
            other.paths -= lost
            continue
        for path in sorted(lost):
            message = f'conflict with "{other.manager}"'
            if other.operation == "Update":
                message += f" using {other.api_version}"
            cause = {"reason": "FieldManagerConflict", "message": message, "field": _dotted(path)}
            causes.append(cause)
    if causes:
        raise _conflict(causes)


def _conflict(causes: list[dict[str, str]]) -> ApiRefusal:
    said = ", ".join(f"{each['message']}: {each['field']}" for each in causes)
    plural = "s" if len(causes) > 1 else ""
    message = f"Apply failed with {len(causes)} conflict{plural}: {said}"
    return refusal(409, "Conflict", message, causes=causes)


def _dotted(path: Path) -> str:
    text = ""
    for each in path:
        if each.startswith("f:"):
            text += "." + each[2:]
        else:
            (name, value), *_ = json.loads(each[2:]).items()
            text += f'[{name}="{value}"]'
    return text


def updated(old: Json, new: Json, claims: list[Claim], mine: Claim) -> None:
    """Give what differs between two objects to `mine`; `claims` are changed in place."""
    before, after = leaves(old, mine.subresource), leaves(new, mine.subresource)
    absent = object()
    changed = {path for path in after if before.get(path, absent) != after[path]}
    for each in claims:
        if each.subresource == mine.subresource:
            each.paths = {path for path in each.paths - changed if path in after}
    known = next((each for each in claims if each.key == mine.key), None)
    if known is not None:
        mine.paths = known.paths | changed
        claims.remove(known)
    else:
        mine.paths = changed
    claims[:] = [each for each in claims if each.paths]
    if mine.paths:
        claims.append(mine)


def _put(value: Json, path: Path, leaf: Any) -> None:
    node: Any = value
    for here, after in zip(path, (*path[1:], ""), strict=True):
        if here.startswith("k:"):
            wanted = json.loads(here[2:])["type"]
            found = next((each for each in node if each["type"] == wanted), None)
            if found is None:
                found = {"type": wanted}
                node.append(found)
            node = found
        elif not after:
            node[here[2:]] = leaf
        else:
            node = node.setdefault(here[2:], [] if after.startswith("k:") else {})


def _remove(value: Json, path: Path) -> None:
    """Take a leaf out, and the maps that it leaves empty."""
    node: Any = value
    trail: list[tuple[Any, Any]] = []
    for each in path:
        if each.startswith("k:"):
            wanted = json.loads(each[2:])["type"]
            step: Any = next((at for at, one in enumerate(node) if one["type"] == wanted), None)
            if step is None:
                return
        else:
            step = each[2:]
            if step not in node:
                return
        trail.append((node, step))
        node = node[step]
    parent, step = trail.pop()
    del parent[step]
    for parent, step in reversed(trail):
        if parent[step] in ({}, []):
            del parent[step]
