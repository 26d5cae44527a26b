"""The small API server beside recordings of a real one: same requests, answers of the same shape.

Compared are the status, the headers that a client acts on, refusals word by word (names, numbers
and ids aside), and of other bodies which fields there are and what holds whatever the cluster.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest

from tests.support.kube.listing import page_token
from tests.support.kube.recordings import ask, plain, recorded_cluster, recording, replay
from tests.support.kube.server import KubeServer
from tests.support.kube.status import too_many

HEADERS = ("content-type", "retry-after", "www-authenticate", "x-content-type-options")


@pytest.fixture
def kube() -> Iterator[KubeServer]:
    with recorded_cluster() as server:
        yield server


def busy(kube: KubeServer) -> None:
    kube.fail("GET /api/v1/pods", too_many(1), times=1)


CRD = ("crd-create",)
MADE = (*CRD, "cr-apply-create-201")

# Steps before each request.
BEFORE: dict[str, Callable[[KubeServer], None]] = {
    "cr-apply-create-201": lambda kube: replay(kube, *CRD),
    "cr-apply-again-200": lambda kube: replay(kube, *MADE),
    "cr-apply-conflict-409": lambda kube: replay(kube, *MADE),
    "cr-apply-status-200": lambda kube: replay(kube, *MADE),
    "crd-get-established": lambda kube: replay(kube, *CRD),
    "lease-create-second-409": lambda kube: replay(kube, "lease-create-201"),
    "lease-renew-stale-409": lambda kube: replay(kube, "lease-create-201"),
    "secret-create-once-409": lambda kube: replay(kube, "secret-create-once-409"),
    "too-many-429": busy,
    "unauthorized-401": lambda kube: setattr(kube.api, "bearers", {}),
    "forbidden-403": lambda kube: only_nodes(kube, "system:node:kn2"),
    "pod-annotate-as-kubelet-403": lambda kube: only_nodes(kube, "system:node:kn1"),
    "list-continue-expired-410": lambda kube: kube.compact(),
    "list-exact-compacted-410": lambda kube: kube.compact(),
    "watch-old-version-410-event": lambda kube: kube.compact(),
}


def only_nodes(kube: KubeServer, user: str) -> None:
    kube.api.bearers = {"": user}
    kube.api.may = lambda user, verb, target: False


def prepare(kube: KubeServer, name: str) -> None:
    if step := BEFORE.get(name):
        step(kube)


REFUSED = (
    "cr-apply-conflict-409",
    "cr-before-crd-404",
    "create-409",
    "delete-uid-conflict-409",
    "forbidden-403",
    "get-404",
    "lease-create-second-409",
    "lease-renew-stale-409",
    "list-continue-expired-410",
    "list-continue-garbage",
    "list-exact-compacted-410",
    "list-future-version",
    "list-garbage-version",
    "pod-annotate-as-kubelet-403",
    "pod-annotate-uid-precondition-422",
    "secret-create-once-409",
    "tokenrequest-short-422",
    "tokenrequest-wrong-pod-uid-409",
    "too-many-429",
    "unauthorized-401",
    "update-conflict-409",
    "watchlist-no-bookmarks",
)
# Fields that the real one repeats, or words of its own parser that nobody acts on.
ASIDE = {"pod-annotate-uid-precondition-422": "causes", "list-continue-garbage": "message"}


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_is_worded_as_recorded(kube: KubeServer, name: str) -> None:
    prepare(kube, name)
    request, real = recording(name)
    ours = ask(kube.port, adapted(request, kube))
    assert ours.code == real.code
    for each in HEADERS[: 3 if "forbidden" in name or "403" in name else 4]:
        assert ours.headers.get(each) == real.headers.get(each), each
    if not real.headers["content-type"].startswith("application/json"):
        assert ours.body == real.body
        return
    mine, theirs = json.loads(ours.body), json.loads(real.body)
    for body in (mine, theirs):
        body.pop(ASIDE.get(name, ""), None)
        body.get("details", {}).pop(ASIDE.get(name, ""), None)
        body["metadata"] = sorted(body["metadata"])
        body["message"] = re.sub(r": No Object name found$", "", body.get("message", ""))
    assert plain(mine) == plain(theirs)


def adapted(request: bytes, kube: KubeServer) -> bytes:
    """The recorded request with this cluster's newest version where the recording has one."""
    uid = kube.get("v1", "Pod", "tok", "vec")
    assert uid is not None
    request = request.replace(
        b"90d78473-71d7-4e10-b930-4d6c17880a98", uid["metadata"]["uid"].encode()
    )
    token = expired_page(kube)
    return re.sub(rb"continue=eyJ2[^ ]*", b"continue=" + token, request)


def expired_page(kube: KubeServer) -> bytes:
    """A continue token of a list from before the last compaction."""
    return page_token(kube.store.oldest - 1, (("", "configmaps"), "vec", "c2")).encode()


SUCCEEDED = (
    "cr-apply-create-201",
    "cr-apply-again-200",
    "cr-apply-status-200",
    "crd-get-established",
    "event-create-201",
    "lease-create-201",
    "list-empty",
    "list-page-1",
    "metadata-only-list",
    "pod-annotate-merge-patch-200",
    "ssar",
    "tokenrequest-201",
)


def shape(value: object, at: str = "") -> set[str]:
    """The fields of a body; the first item stands for all of a list."""
    if isinstance(value, dict):
        return {each for key, child in value.items() for each in shape(child, f"{at}.{key}")} | {at}
    if isinstance(value, list) and value:
        return shape(value[0], f"{at}[]")
    return {at}


# A small one needs no pod defaults, no conversion strategies, nor the API server's own fields.
NOT_OURS = re.compile(
    r"\.spec\.(containers|volumes|tolerations|conversion|names|versions|[a-zA-Z]+$)|\.status\."
    r"(phase|conditions\[\]\.message|[a-zA-Z]+IP|reason)|fieldsV1|kubectl|deprecated|managedFields"
    r"|annotations|labels|\.status\.(start|container|qos|observed|resources)|\.status\.conditions"
    r"|^\.status$|listKind"
)


@pytest.mark.parametrize("name", SUCCEEDED)
def test_an_answer_has_the_recorded_fields(kube: KubeServer, name: str) -> None:
    prepare(kube, name)
    request, real = recording(name)
    ours = ask(kube.port, adapted(request, kube))
    assert ours.code == real.code
    mine = {each for each in shape(json.loads(ours.body)) if not NOT_OURS.search(each)}
    theirs = {each for each in shape(json.loads(real.body)) if not NOT_OURS.search(each)}
    assert mine == theirs


@pytest.mark.parametrize("name", ["cr-apply-create-201", "cr-apply-status-200", "lease-create-201"])
def test_managed_fields_are_the_recorded_ones(kube: KubeServer, name: str) -> None:
    prepare(kube, name)
    request, real = recording(name)
    ours = json.loads(ask(kube.port, request).body)["metadata"]["managedFields"]
    theirs = json.loads(real.body)["metadata"]["managedFields"]
    for each in (*ours, *theirs):
        each.pop("time")
    assert ours == theirs


def test_an_equal_put_keeps_the_version_and_another_does_not(kube: KubeServer) -> None:
    replay(kube, "lease-create-201")
    made = kube.get("coordination.k8s.io/v1", "Lease", "tulle-control", "vec")
    assert made is not None
    for name in ("lease-renew-200", "lease-renew-unchanged-200"):
        version = kube.store.version
        request, real = recording(name)
        asked = re.sub(rb'"resourceVersion": "\d+"', b'"resourceVersion": "%d"' % version, request)
        reply = ask(kube.port, asked)
        assert reply.code == real.code
        changed = int(json.loads(reply.body)["metadata"]["resourceVersion"]) > version
        assert changed == (name == "lease-renew-200")


@pytest.mark.parametrize(
    "name",
    [
        "tokenreview-garbage",
        "tokenreview-expired",
        "tokenreview-no-audience",
        "tokenreview-not-yet",
        "tokenreview-pod-deleted",
        "tokenreview-pod-terminating",
        "tokenreview-projected-valid",
        "tokenreview-wrong-audience",
    ],
)
def test_a_token_is_judged_as_recorded(kube: KubeServer, name: str) -> None:
    token = kube.token("default", audience="tulle-ca", namespace="vec", pod="tok")
    claims = kube.tokens.made[token]
    if name.endswith("expired"):
        claims["exp"] = claims["iat"] - 1
    if name.endswith("not-yet"):
        claims["nbf"] = claims["exp"]
    if name.endswith("pod-deleted"):
        kube.remove("v1", "Pod", "tok", "vec")
    if name.endswith("terminating"):
        ask(
            kube.port,
            b"DELETE /api/v1/namespaces/vec/pods/tok HTTP/1.1\r\nConnection: close\r\n\r\n",
        )
    request, real = recording(name)
    if not name.endswith("garbage"):
        request = re.sub(rb'"token": "[^"]*"', b'"token": "%b"' % token.encode(), request)
    reply = ask(kube.port, request)
    assert reply.code == real.code == 201
    ours, theirs = json.loads(reply.body)["status"], json.loads(real.body)["status"]
    assert shape(ours) == shape(theirs)
    for each in ("authenticated", "audiences", "error"):
        assert ours.get(each) == theirs.get(each)


def test_an_applied_list_of_conditions_is_merged_by_type(kube: KubeServer) -> None:
    replay(kube, *MADE, "cr-apply-status-200")
    request = recording("cr-apply-status-200")[0].replace(b"tulle-status", b"somebody")
    other = request.replace(b'"Accepted"', b'"Audited"').replace(b'"workloads": 3, ', b"")
    assert ask(kube.port, other).code == 200
    made = kube.get("tulle.io/v1alpha1", "EgressPolicy", "e1", "vec")
    assert made is not None
    assert [each["type"] for each in made["status"]["conditions"]] == ["Accepted", "Audited"]
    none = re.sub(rb'"conditions": \[.*\]', b'"workloads": 3', other)
    assert ask(kube.port, none).code == 200  # what the manager no longer names goes away
    made = kube.get("tulle.io/v1alpha1", "EgressPolicy", "e1", "vec")
    assert made is not None
    assert [each["type"] for each in made["status"]["conditions"]] == ["Accepted"]


def test_troubles_befall_what_a_test_names(kube: KubeServer) -> None:
    request = b"GET /version HTTP/1.1\r\nConnection: close\r\n\r\n"
    kube.fail("GET /version", cut=True, times=1)
    with pytest.raises((OSError, IndexError)):
        ask(kube.port, request)
    assert ask(kube.port, request).code == 200
    with kube.away(), pytest.raises(ConnectionRefusedError):
        ask(kube.port, request)
    assert ask(kube.port, request).code == 200
    assert kube.faults.count("GET /version") == 3


def test_clock_of_stamps_is_the_stores(kube: KubeServer) -> None:
    kube.store.now = lambda: datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert kube.namespace("later")["metadata"]["creationTimestamp"] == "2030-01-02T03:04:05Z"
