"""Requests in, answers out: the API server without sockets."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.support.kube.faults import Request
from tests.support.kube.kinds import Resource
from tests.support.kube.listing import Scope, Watch, as_metadata, listed, shown
from tests.support.kube.status import ApiRefusal, Json, not_there, refusal, unauthorized
from tests.support.kube.store import Author, Store
from tests.support.kube.tokens import ISSUER, Tokens

APPLY, MERGE = "application/apply-patch+yaml", "application/merge-patch+json"
KEY_SET = "application/jwk-set+json"
VERSION = {"major": "1", "minor": "36", "gitVersion": "v1.36.2", "platform": "linux/amd64"}


@dataclass(slots=True)
class Answer:
    code: int
    body: bytes
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Target:
    """A parsed path: `/apis/GROUP/VERSION/namespaces/NAMESPACE/PLURAL/NAME/SUBRESOURCE`."""

    resource: Resource
    namespace: str
    name: str
    subresource: str


@dataclass(slots=True)
class Api:
    """`bearers`: token → user, None lets everybody in. `may(user, verb, target)` says if a caller
    may. `refuse(target, object)` is admission: it raises ApiRefusal."""

    store: Store
    tokens: Tokens
    bearers: dict[str, str] | None = None
    has_watch_lists: bool = True
    may: Callable[[str, str, Target], bool] = lambda user, verb, target: True
    refuse: Callable[[Target, Json], None] = lambda target, value: None

    def handle(self, request: Request) -> Answer | Watch:
        """Never raises: a refusal is an answer."""
        try:
            user = self._user(request)
            if found := self._plain(request.path, request.headers.get("accept", "")):
                return found
            target = self._target(request.path)
            return self._act(request, target, user)
        except ApiRefusal as exc:
            return Answer(exc.code, exc.encoded(), exc.content_type, exc.headers)

    def _user(self, request: Request) -> str:
        given = request.headers.get("authorization", "")
        if self.bearers is None:
            return "admin"
        user = self.bearers.get(given.removeprefix("Bearer "))
        if user is None:
            raise unauthorized()
        return user

    def _plain(self, path: str, accept: str) -> Answer | None:
        if path == "/version":
            return Answer(200, json.dumps(VERSION, indent=2).encode())
        if path in ("/readyz", "/livez", "/healthz"):
            return Answer(200, b"ok", "text/plain; charset=utf-8")
        if path == "/.well-known/openid-configuration":
            return _ok(200, {"issuer": ISSUER, "jwks_uri": f"{ISSUER}/openid/v1/jwks"})
        if path == "/openid/v1/jwks":
            if accept not in ("", "*/*", KEY_SET):
                said = f"406: Not Acceptable\n\nAvailable representations: {KEY_SET}"
                raise refusal(406, "NotAcceptable", said)
            return Answer(200, json.dumps(self.tokens.published()).encode(), KEY_SET)
        if path == "/apis":
            groups: dict[str, list[str]] = {}
            for each in self.store.resources:
                if each.group:
                    versions = groups.setdefault(each.group, [])
                    versions += [each.version] if each.version not in versions else []
            return _ok(200, {"kind": "APIGroupList", "groups": _groups(groups)})
        parts = path.strip("/").split("/")
        if parts == ["api", "v1"] or (parts[0] == "apis" and len(parts) == 3):
            group, version = ("", "v1") if parts[0] == "api" else (parts[1], parts[2])
            return self._resources(group, version)
        return None

    def _resources(self, group: str, version: str) -> Answer:
        found = [
            each for each in self.store.resources if (each.group, each.version) == (group, version)
        ]
        if not found:
            raise not_there()
        rows = []
        for each in found:
            row = {"name": each.plural, "namespaced": each.is_namespaced, "kind": each.kind}
            rows.append({**row, "verbs": ["get", "list", "watch", "create", "patch"]})
            rows += [{**row, "name": f"{each.plural}/status"}] if each.has_status else []
        body = {"kind": "APIResourceList", "groupVersion": found[0].api_version, "resources": rows}
        return _ok(200, body)

    def _target(self, path: str) -> Target:
        parts = path.strip("/").split("/")
        if parts[0] == "api" and len(parts) > 2:
            group, rest = "", parts[1:]
        elif parts[0] == "apis" and len(parts) > 3:
            group, rest = parts[1], parts[2:]
        else:
            raise not_there()
        version, *rest = rest
        namespace = ""
        if rest[0] == "namespaces" and len(rest) > 2 and rest[2] not in ("status", "finalize"):
            namespace, rest = rest[1], rest[2:]
        name, subresource = (*rest[1:], "", "")[:2]
        virtual = VIRTUAL.get((group, version, rest[0]))
        resource = virtual or self.store.resource(group, version, rest[0])
        if resource is None:
            raise not_there()
        return Target(resource, namespace, name, subresource)

    def _act(self, request: Request, target: Target, user: str) -> Answer | Watch:
        verb = _verb(request, target)
        if not self.may(user, verb, target):
            raise _forbidden(user, verb, target)
        if target.resource in VIRTUAL.values():
            return self._review(target, json.loads(request.body))
        if verb == "watch":
            return Watch(self._scope(request, target), request.params, self.has_watch_lists)
        if verb == "list":
            return self._list(request, target)
        if verb == "get":
            return self._shown(200, target, self._get(target), request)
        if verb == "delete":
            options = json.loads(request.body or b"{}")
            gone = self.store.delete(target.resource, target.namespace, target.name, options)
            return self._shown(200, target, gone, request)
        return self._write(request, target, verb)

    def _scope(self, request: Request, target: Target) -> Scope:
        labels = request.params.get("labelSelector", "")
        fields = request.params.get("fieldSelector", "")
        if target.name:
            fields = f"metadata.name={target.name}"
        return Scope(target.resource, target.namespace, labels, fields)

    def _list(self, request: Request, target: Target) -> Answer:
        body = listed(self.store, self._scope(request, target), request.params)
        if "as=PartialObjectMetadataList" in request.headers.get("accept", ""):
            head = {"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1"}
            body = {**body, **head, "items": [as_metadata(each) for each in body["items"]]}
        return _ok(200, body)

    def _get(self, target: Target) -> Json:
        return self.store.get(target.resource, target.namespace, target.name)

    def _shown(self, code: int, target: Target, value: Json, request: Request) -> Answer:
        if "as=PartialObjectMetadata" in request.headers.get("accept", ""):
            return _ok(code, as_metadata(value))
        return _ok(code, shown(target.resource, value))

    def _write(self, request: Request, target: Target, verb: str) -> Answer:
        value = _parsed(request.body)
        if target.resource.plural == "serviceaccounts" and target.subresource == "token":
            return _ok(201, self.tokens.request(target.namespace, target.name, value))
        self.refuse(target, value)
        author = _author(request, target)
        where = (target.resource, target.namespace)
        code = 200
        if verb == "create":
            self._check_namespace(target, value)
            code, made = 201, self.store.create(*where, value, author)
        elif verb == "update":
            made = self.store.replace(*where, value, author)
        elif author.operation == "Apply" and request.params.get("dryRun") == "All":
            made, is_new = self.store.tried(*where, target.name, value, author)
            code = 201 if is_new else 200
        elif author.operation == "Apply":
            made, is_new = self.store.apply(*where, target.name, value, author)
            code = 201 if is_new else 200
        else:
            made = self.store.merge(*where, target.name, value, author)
        return self._shown(code, target, made, request)

    def _check_namespace(self, target: Target, value: Json) -> None:
        said = value.get("metadata", {}).get("namespace", target.namespace)
        if said != target.namespace:
            message = "the namespace of the provided object does not match the namespace sent on "
            raise refusal(400, "BadRequest", message + "the request")

    def _review(self, target: Target, asked: Json) -> Answer:
        if target.resource.kind == "TokenReview":
            return _ok(201, self.tokens.review(asked))
        return _ok(201, {**asked, "metadata": {}, "status": {"allowed": True, "reason": ""}})


VIRTUAL = {
    ("authentication.k8s.io", "v1", "tokenreviews"): Resource(
        "authentication.k8s.io", "v1", "tokenreviews", "TokenReview", False
    ),
    ("authorization.k8s.io", "v1", "selfsubjectaccessreviews"): Resource(
        "authorization.k8s.io", "v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview", False
    ),
}


def _ok(code: int, body: Any) -> Answer:
    return Answer(code, json.dumps(body, separators=(",", ":")).encode())


def _parsed(body: bytes) -> Json:
    try:
        value = json.loads(body)
    except ValueError as exc:
        raise refusal(400, "BadRequest", f"the object provided is unrecognized: {exc}") from None
    assert isinstance(value, dict)
    return value


def _groups(groups: dict[str, list[str]]) -> list[Json]:
    return [
        {
            "name": name,
            "versions": [{"groupVersion": f"{name}/{each}", "version": each} for each in versions],
        }
        for name, versions in groups.items()
    ]


def _verb(request: Request, target: Target) -> str:
    if request.method == "GET":
        return "watch" if request.is_watch else "get" if target.name else "list"
    verbs = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
    return verbs[request.method]


def _author(request: Request, target: Target) -> Author:
    agent = request.headers.get("user-agent", "unknown").split("/")[0]
    manager = request.params.get("fieldManager", agent)
    kind = request.headers.get("content-type", "").split(";")[0]
    operation = "Update"
    if request.method == "PATCH" and kind == APPLY:
        if "fieldManager" not in request.params:
            message = 'PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value'
            raise refusal(422, "Invalid", message)
        operation = "Apply"
    elif request.method == "PATCH" and kind != MERGE:
        raise refusal(415, "UnsupportedMediaType", f"the body has an unsupported type {kind}")
    return Author(manager, operation, target.subresource, request.params.get("force") == "true")


def _forbidden(user: str, verb: str, target: Target) -> ApiRefusal:
    resource = target.resource
    named = f'{resource.full_name} "{target.name}"' if target.name else resource.full_name
    where = (
        f' in the namespace "{target.namespace}"' if target.namespace else " at the cluster scope"
    )
    message = (
        f'{named} is forbidden: User "{user}" cannot {verb} resource "{resource.plural}" in API '
        f'group "{resource.group}"{where}'
    )
    details = {"name": target.name} if target.name else {}
    return refusal(403, "Forbidden", message, **details, **resource.details)
