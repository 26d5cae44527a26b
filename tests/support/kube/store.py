"""Objects of the small API server: versions, preconditions, and the history that watches read."""

from __future__ import annotations

import copy
import secrets
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from control.kit.clock import SystemClock
from tests.support.kube import fields
from tests.support.kube.fields import Claim
from tests.support.kube.kinds import BUILT_IN, Resource, defined_by
from tests.support.kube.status import MODIFIED, ApiRefusal, Json, invalid, refusal

Key = tuple[tuple[str, str], str, str]  # storage, namespace, name


@dataclass(frozen=True, slots=True)
class Change:
    """One step of the history. `before` is None for an object that was made."""

    version: int
    kind: str  # ADDED, MODIFIED, DELETED
    key: Key
    before: Json | None
    after: Json | None


@dataclass(frozen=True, slots=True)
class Author:
    """Somebody who writes: the field manager, the operation and the subresource."""

    manager: str = "tulle"
    operation: str = "Update"
    subresource: str = ""
    force: bool = False


@dataclass(slots=True)
class Store:
    """`now` is the clock of the API server. Not safe for threads: the caller holds a lock."""

    now: Callable[[], datetime] = SystemClock().now
    version: int = 1000
    oldest: int = 0  # versions below it are compacted
    resources: list[Resource] = field(default_factory=lambda: list(BUILT_IN))
    objects: dict[Key, Json] = field(default_factory=dict)
    history: list[Change] = field(default_factory=list)
    listeners: list[Callable[[Change], None]] = field(default_factory=list)
    _claims: dict[Key, list[Claim]] = field(default_factory=dict)

    def resource(self, group: str, version: str, plural: str) -> Resource | None:
        wanted = (group, version, plural)
        found = (
            each for each in self.resources if (each.group, each.version, each.plural) == wanted
        )
        return next(found, None)

    def resource_of(self, value: Json) -> Resource:
        """The resource of a manifest. KeyError when no such kind is served."""
        for each in self.resources:
            if (each.api_version, each.kind) == (value["apiVersion"], value["kind"]):
                return each
        raise KeyError(f"{value['apiVersion']} {value['kind']}")

    def key(self, resource: Resource, namespace: str, name: str) -> Key:
        return (resource.storage, namespace if resource.is_namespaced else "", name)

    def get(self, resource: Resource, namespace: str, name: str) -> Json:
        found = self.objects.get(self.key(resource, namespace, name))
        if found is None:
            message = f'{resource.full_name} "{name}" not found'
            raise refusal(404, "NotFound", message, name=name, **resource.details)
        return found

    def all(self, resource: Resource, namespace: str = "") -> Iterator[Json]:
        """Objects in order of namespace and name."""
        for key in sorted(self.objects):
            if key[0] == resource.storage and namespace in ("", key[1]):
                yield self.objects[key]

    def create(self, resource: Resource, namespace: str, value: Json, author: Author) -> Json:
        new = copy.deepcopy(value)
        metadata = new.setdefault("metadata", {})
        if not metadata.get("name") and metadata.get("generateName"):
            metadata["name"] = metadata["generateName"] + secrets.token_hex(3)[:5]
        name = metadata.get("name", "")
        if not name:
            said, why = "Required value: name or generateName is required", "FieldValueRequired"
            raise invalid(resource.group, resource.kind, "", "metadata.name", said, why)
        key = self.key(resource, namespace, name)
        self._check_namespace(key)
        if key in self.objects:
            message = f'{resource.full_name} "{name}" already exists'
            raise refusal(409, "AlreadyExists", message, name=name, **resource.details)
        if resource.has_status and resource.is_custom:
            new.pop("status", None)
        metadata |= {"uid": str(uuid.uuid4()), "creationTimestamp": self.stamp()}
        if resource.is_namespaced:
            metadata["namespace"] = namespace
        if resource.counts_generations:
            metadata["generation"] = 1
        new |= {"kind": resource.kind, "apiVersion": resource.api_version}
        claims = self._claims[key] = []
        fields.updated({}, new, claims, self._claim(resource, author))
        return self._put(key, None, new)

    def _check_namespace(self, key: Key) -> None:
        namespace = key[1]
        if not namespace:
            return
        found = self.objects.get((("", "namespaces"), "", namespace))
        if found is None:
            message = f'namespaces "{namespace}" not found'
            raise refusal(404, "NotFound", message, name=namespace, kind="namespaces")

    def replace(self, resource: Resource, namespace: str, value: Json, author: Author) -> Json:
        """A PUT: the version that it names has to be the newest."""
        old = self.get(resource, namespace, value["metadata"]["name"])
        self._check_uid(resource, old, value)
        new = copy.deepcopy(value)
        for each in ("uid", "creationTimestamp", "namespace", "generation", "managedFields"):
            if each in old["metadata"]:
                new["metadata"][each] = copy.deepcopy(old["metadata"][each])
        return self._written(resource, old, new, value, author)

    def merge(
        self, resource: Resource, namespace: str, name: str, patch: Json, author: Author
    ) -> Json:
        old = self.get(resource, namespace, name)
        self._check_uid(resource, old, patch)
        return self._written(resource, old, fields.merged(old, patch), patch, author)

    def apply(
        self, resource: Resource, namespace: str, name: str, config: Json, author: Author
    ) -> tuple[Json, bool]:
        """The object, and if it was made now."""
        key = self.key(resource, namespace, name)
        mine = self._claim(resource, author)
        old = self.objects.get(key)
        if old is None:
            if author.subresource:
                self.get(resource, namespace, name)
            made = self.create(resource, namespace, config, Author("", "Apply"))
            mine.paths = set(fields.leaves(config, ""))
            self._claims[key] = [mine]
            made["metadata"]["managedFields"] = [mine.shown()]
            return made, True
        self._check_uid(resource, old, config)
        claims = copy.deepcopy(self._claims[key])
        new = fields.applied(old, claims, mine, config, author.force)
        return self._put(key, old, new, claims, resource), False

    def tried(
        self, resource: Resource, namespace: str, name: str, config: Json, author: Author
    ) -> tuple[Json, bool]:
        """An apply that happens in a copy."""
        copied = replace(
            self,
            resources=list(self.resources),
            objects=dict(self.objects),
            history=[],
            listeners=[],
            _claims=copy.deepcopy(self._claims),
        )
        return copied.apply(resource, namespace, name, config, author)

    def _written(
        self, resource: Resource, old: Json, new: Json, asked: Json, author: Author
    ) -> Json:
        wanted = asked.get("metadata", {}).get("resourceVersion")
        name = old["metadata"]["name"]
        if wanted and wanted != old["metadata"]["resourceVersion"]:
            message = f'Operation cannot be fulfilled on {resource.full_name} "{name}": {MODIFIED}'
            raise refusal(409, "Conflict", message, name=name, **resource.details)
        if author.subresource:
            new = {**copy.deepcopy(old), "status": new.get("status", {})}
        elif resource.has_status and "status" in old:
            new["status"] = copy.deepcopy(old["status"])
        elif resource.has_status:
            new.pop("status", None)
        new |= {"kind": resource.kind, "apiVersion": resource.api_version}
        key = self.key(resource, old["metadata"].get("namespace", ""), name)
        claims = copy.deepcopy(self._claims[key])
        fields.updated(old, new, claims, self._claim(resource, author))
        return self._put(key, old, new, claims, resource)

    def _check_uid(self, resource: Resource, old: Json, new: Json) -> None:
        metadata = new.get("metadata", {})
        uid = metadata.get("uid")
        if not uid or uid == old["metadata"]["uid"]:
            return
        said = f'Invalid value: "{uid}": field is immutable'
        name, why = old["metadata"]["name"], "FieldValueInvalid"
        raise invalid(resource.group, resource.kind, name, "metadata.uid", said, why)

    def delete(self, resource: Resource, namespace: str, name: str, options: Json) -> Json:
        """Gone at once; a scheduled pod and what has finalizers only begin to go."""
        old = self.get(resource, namespace, name)
        wanted = options.get("preconditions", {}).get("uid", old["metadata"]["uid"])
        if wanted != old["metadata"]["uid"]:
            message = (
                f'Operation cannot be fulfilled on {resource.kind} "{name}": the UID in the '
                f"precondition ({wanted}) does not match the UID in record "
                f"({old['metadata']['uid']}). The object might have been deleted and then recreated"
            )
            raise refusal(409, "Conflict", message, name=name, kind=resource.kind)
        key = self.key(resource, namespace, name)
        runs = resource.plural == "pods" and bool(old.get("spec", {}).get("nodeName"))
        grace_s = options.get("gracePeriodSeconds", 30)
        if (runs and grace_s > 0) or old["metadata"].get("finalizers"):
            new = copy.deepcopy(old)
            new["metadata"].setdefault("deletionTimestamp", self.stamp())
            return self._put(key, old, new, self._claims[key])
        if resource.plural == "namespaces":
            for each in [each for each in self.objects if each[1] == name]:
                self.remove(each)
        self.remove(key)
        return old

    def remove(self, key: Key) -> None:
        """The end of an object, as a kubelet or a finalizer's owner brings it about."""
        old = self.objects.pop(key)
        self._claims.pop(key, None)
        last = copy.deepcopy(old)
        self.version += 1
        last["metadata"]["resourceVersion"] = str(self.version)
        if key[0] == ("apiextensions.k8s.io", "customresourcedefinitions"):
            group, plural = old["spec"]["group"], old["spec"]["names"]["plural"]
            keep = [each for each in self.resources if each.storage != (group, plural)]
            self.resources = keep
        self._tell(Change(self.version, "DELETED", key, old, last))

    def _put(
        self,
        key: Key,
        old: Json | None,
        new: Json,
        claims: list[Claim] | None = None,
        resource: Resource | None = None,
    ) -> Json:
        """Keep the object under a new version; under the old one if nothing is different."""
        if old is not None and _content(old) == _content(new):
            return old
        if claims is not None:
            self._claims[key] = claims
        self.version += 1
        metadata = new["metadata"]
        metadata["resourceVersion"] = str(self.version)
        metadata["managedFields"] = [each.shown() for each in self._claims[key]]
        if old is not None and resource is not None and resource.counts_generations:
            rest = ("metadata", "status")
            before = {name: each for name, each in old.items() if name not in rest}
            after = {name: each for name, each in new.items() if name not in rest}
            metadata["generation"] = old["metadata"].get("generation", 0) + (before != after)
        if key[0] == ("apiextensions.k8s.io", "customresourcedefinitions"):
            self._define(new)
        self.objects[key] = new
        self._tell(Change(self.version, "MODIFIED" if old else "ADDED", key, old, new))
        is_ending = metadata.get("deletionTimestamp") and not metadata.get("finalizers")
        if old and is_ending and key[0] != ("", "pods"):
            self.remove(key)
        return new

    def _define(self, definition: Json) -> None:
        group, plural = definition["spec"]["group"], definition["spec"]["names"]["plural"]
        others = [each for each in self.resources if each.storage != (group, plural)]
        self.resources = others + defined_by(definition)
        names = copy.deepcopy(definition["spec"]["names"])
        since = {"status": "True", "lastTransitionTime": self.stamp()}
        definition["status"] = {
            "conditions": [
                {"type": "NamesAccepted", **since, "reason": "NoConflicts"},
                {"type": "Established", **since, "reason": "InitialNamesAccepted"},
            ],
            "acceptedNames": names,
            "storedVersions": [
                each["name"] for each in definition["spec"]["versions"] if each.get("storage")
            ],
        }

    def _claim(self, resource: Resource, author: Author) -> Claim:
        version, manager = resource.api_version, author.manager
        return Claim(manager, author.operation, author.subresource, version, self.stamp(), set())

    def _tell(self, change: Change) -> None:
        self.history.append(change)
        for each in list(self.listeners):
            each(change)

    def at(self, version: int) -> dict[Key, Json]:
        """All objects as they were. Raises ApiRefusal (410) for a version that is compacted."""
        if version < self.oldest:
            raise ApiRefusal(410, {"message": "compacted"})
        found = dict(self.objects)
        for change in reversed(self.history):
            if change.version <= version:
                break
            if change.before is None:
                found.pop(change.key, None)
            else:
                found[change.key] = change.before
        return found

    def compact(self) -> None:
        """Forget every version but the newest."""
        self.version += 1
        self.oldest = self.version
        self.history.clear()

    def stamp(self) -> str:
        return self.now().strftime("%Y-%m-%dT%H:%M:%SZ")


def _content(value: Json) -> dict[str, Any]:
    """Everything but the version and what follows from it."""
    left_out = ("resourceVersion", "managedFields", "generation")
    rest = {name: each for name, each in value["metadata"].items() if name not in left_out}
    return {**value, "metadata": rest}
