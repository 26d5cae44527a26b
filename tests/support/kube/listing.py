"""Lists and watches: selectors, pages, versions that are too old or too new, initial events."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.support.kube.kinds import Resource
from tests.support.kube.status import (
    GONE,
    GONE_PAGE,
    Json,
    expired_event,
    invalid,
    refusal,
    too_new,
)
from tests.support.kube.store import Change, Key, Store

Params = Mapping[str, str]


def shown(resource: Resource, value: Json) -> Json:
    """An object as this version of its resource shows it."""
    return {**value, "kind": resource.kind, "apiVersion": resource.api_version}


def as_metadata(value: Json) -> Json:
    head = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1"}
    return {**head, "metadata": value["metadata"]}


@dataclass(frozen=True, slots=True)
class Scope:
    """The objects that somebody asked for."""

    resource: Resource
    namespace: str
    labels: str = ""
    fields: str = ""

    def has(self, key: Key, value: Json | None) -> bool:
        if value is None or key[0] != self.resource.storage:
            return False
        if self.namespace not in ("", key[1]):
            return False
        labels = value["metadata"].get("labels") or {}
        return _labels_match(self.labels, labels) and _fields_match(self.fields, value)


def _labels_match(selector: str, labels: Mapping[str, str]) -> bool:
    return all(_term(each.strip(), labels) for each in re.split(r",(?![^(]*\))", selector) if each)


def _term(term: str, labels: Mapping[str, str]) -> bool:
    if found := re.fullmatch(r"(\S+) (in|notin) \((.*)\)", term):
        values = {each.strip() for each in found[3].split(",")}
        return (labels.get(found[1]) in values) == (found[2] == "in")
    if "!=" in term:
        name, _, value = term.partition("!=")
        return labels.get(name) != value
    if "=" in term:
        name, _, value = term.replace("==", "=").partition("=")
        return labels.get(name) == value
    return term[1:] not in labels if term.startswith("!") else term in labels


def _fields_match(selector: str, value: Json) -> bool:
    for term in filter(None, selector.split(",")):
        path, _, wanted = term.replace("==", "=").partition("=")
        is_not = path.endswith("!")
        found: Any = value
        for each in path.rstrip("!").split("."):
            found = found.get(each, "") if isinstance(found, dict) else ""
        if (str(found) == wanted) == is_not:
            return False
    return True


def _number(text: str) -> int:
    if not text.isdecimal():
        quoted = json.dumps(text)
        raise refusal(
            400,
            "BadRequest",
            f"invalid resource version: resourceVersion: Invalid value: {quoted}: "
            f"strconv.ParseUint: parsing {quoted}: invalid syntax",
        )
    return int(text)


def page_token(version: int, last: Key) -> str:
    start = f"/{last[1]}/{last[2]}\0"
    token = json.dumps({"v": "meta.k8s.io/v1", "rv": version, "start": start})
    return base64.urlsafe_b64encode(token.encode()).rstrip(b"=").decode()


def _page_start(token: str) -> tuple[int, tuple[str, str]]:
    try:
        read = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        _, namespace, name = read["start"].rstrip("\0").split("/")
        return int(read["rv"]), (namespace, name)
    except (ValueError, KeyError, TypeError):
        message = "invalid continue token: continue key is not valid"
        raise refusal(400, "BadRequest", message) from None


def listed(store: Store, scope: Scope, params: Params) -> Json:
    """Body of a list. Raises ApiRefusal."""
    limit = int(params.get("limit", "0") or "0")
    wanted = params.get("resourceVersion", "")
    version, after = store.version, ("", "")
    objects = store.objects
    if token := params.get("continue"):
        at, after = _page_start(token)
        if 0 <= at < store.oldest:
            goes_on = page_token(-1, (scope.resource.storage, *after))
            raise refusal(410, "Expired", GONE_PAGE, continues=goes_on)
        if at >= 0:
            version, objects = at, store.at(at)
    elif wanted:
        number = _number(wanted)
        if number > store.version:
            raise too_new(number, store.version)
        if params.get("resourceVersionMatch") == "Exact":
            if number < store.oldest:
                raise refusal(410, "Expired", GONE)
            version, objects = number, store.at(number)
        elif number == 0:
            limit = 0  # the watch cache gives everything
    keys = [key for key in sorted(objects) if scope.has(key, objects[key]) and key[1:] > after]
    metadata: Json = {"resourceVersion": str(version)}
    if limit and len(keys) > limit:
        metadata["continue"] = page_token(version, keys[limit - 1])
        if not (scope.labels or scope.fields):
            metadata["remainingItemCount"] = len(keys) - limit
        keys = keys[:limit]
    resource = scope.resource
    items = [_item(resource, objects[key]) for key in keys]
    head = {"kind": f"{resource.kind}List", "apiVersion": resource.api_version}
    return {**head, "metadata": metadata, "items": items}


def _item(resource: Resource, value: Json) -> Json:
    if resource.is_custom:
        return shown(resource, value)
    return {name: each for name, each in value.items() if name not in ("kind", "apiVersion")}


@dataclass(slots=True)
class Watch:
    """One watch: `begin` gives its first lines, `line` what a change means to it."""

    scope: Scope
    params: Params
    has_lists: bool  # the server knows sendInitialEvents
    is_over: bool = False
    seen: int = 0
    begun: list[Json] = field(default_factory=list)

    @property
    def bookmarks(self) -> bool:
        return self.params.get("allowWatchBookmarks") in ("true", "1")

    def begin(self, store: Store) -> list[Json]:
        """Raises ApiRefusal."""
        number = _number(self.params.get("resourceVersion") or "0")
        if self.params.get("sendInitialEvents") in ("true", "1"):
            self._check_initial()
            lines = [self._event("ADDED", each) for each in self._matching(store)]
            self.seen = max(store.version, number)
            return [*lines, self.bookmark(store.version, is_first=True)]
        if number == 0:
            self.seen = store.version
            return [self._event("ADDED", each) for each in self._matching(store)]
        self.seen = number
        if number < store.oldest:
            self.is_over = True
            return [{"type": "ERROR", "object": expired_event(number, store.oldest)}]
        later = (self.line(each) for each in store.history if each.version > number)
        return list(filter(None, later))

    def _check_initial(self) -> None:
        def refused(field: str, message: str) -> Exception:
            said, why = f"Forbidden: {message}", "FieldValueForbidden"
            return invalid("meta.k8s.io", "ListOptions", "", field, said, why)

        if not self.has_lists:
            message = (
                "sendInitialEvents is forbidden for watch unless the WatchList feature gate "
                "is enabled"
            )
            raise refused("sendInitialEvents", message)
        if self.params.get("resourceVersionMatch") != "NotOlderThan":
            message = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
            raise refused("resourceVersionMatch", message)

    def _matching(self, store: Store) -> list[Json]:
        return [each for key, each in sorted(store.objects.items()) if self.scope.has(key, each)]

    def line(self, change: Change) -> Json | None:
        """An object that leaves the selection was deleted, one that comes into it was added."""
        if change.version <= self.seen:
            return None
        was = self.scope.has(change.key, change.before)
        is_now = change.kind != "DELETED" and self.scope.has(change.key, change.after)
        self.seen = change.version
        if not (was or is_now) or change.after is None:
            return None
        kind = "MODIFIED" if was and is_now else "ADDED" if is_now else "DELETED"
        return self._event(kind, change.after)

    def _event(self, kind: str, value: Json) -> Json:
        return {"type": kind, "object": shown(self.scope.resource, value)}

    def bookmark(self, version: int, *, is_first: bool = False) -> Json:
        metadata: Json = {"resourceVersion": str(max(version, 1))}
        if is_first:
            metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
        resource = self.scope.resource
        head = {"kind": resource.kind, "apiVersion": resource.api_version}
        return {"type": "BOOKMARK", "object": {**head, "metadata": metadata}}
