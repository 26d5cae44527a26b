"""The small API server's lists and watches beside recordings of a real one."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from tests.support.kube.recordings import Reply, ask, plain, pod, recorded_cluster, recording
from tests.support.kube.server import KubeServer


@pytest.fixture
def kube() -> Iterator[KubeServer]:
    with recorded_cluster() as server:
        yield server


def test_pages_go_on_at_the_version_of_the_first(kube: KubeServer) -> None:
    first = json.loads(ask(kube.port, recording("list-page-1")[0]).body)
    kube.put(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c35", "namespace": "vec"}}
    )
    token = first["metadata"]["continue"].encode()
    asked = re.sub(rb"continue=\S+", b"continue=" + token, recording("list-page-2")[0])
    second = json.loads(ask(kube.port, asked).body)
    token = second["metadata"]["continue"].encode()
    third = json.loads(ask(kube.port, re.sub(rb"continue=\S+", b"continue=" + token, asked)).body)
    names = [each["metadata"]["name"] for page in (first, second, third) for each in page["items"]]
    assert names == [f"c{number}" for number in range(7)]
    assert len({each["metadata"]["resourceVersion"] for each in (first, second, third)}) == 1
    assert first["metadata"]["remainingItemCount"] == 4
    assert "continue" not in third["metadata"]


def test_version_0_gives_the_whole_list_whatever_the_limit(kube: KubeServer) -> None:
    request, real = recording("list-rv0")
    ours = json.loads(ask(kube.port, request).body)
    assert len(ours["items"]) == len(json.loads(real.body)["items"]) == 7
    assert "continue" not in ours["metadata"]


def test_a_continue_token_of_a_refusal_reads_the_rest(kube: KubeServer) -> None:
    first = json.loads(ask(kube.port, recording("list-page-1")[0]).body)
    kube.compact()
    token = first["metadata"]["continue"].encode()
    asked = re.sub(rb"continue=\S+", b"continue=" + token, recording("list-page-2")[0])
    refused = ask(kube.port, asked)
    assert refused.code == 410
    token = json.loads(refused.body)["metadata"]["continue"].encode()
    rest = json.loads(ask(kube.port, re.sub(rb"continue=\S+", b"continue=" + token, asked)).body)
    assert [each["metadata"]["name"] for each in rest["items"]] == ["c3", "c4", "c5"]


def kinds(reply: Reply) -> list[tuple[str, bool]]:
    """Types of a watch's lines, and which carry the mark of the end of the initial events."""
    mark = "k8s.io/initial-events-end"
    return [
        (each["type"], mark in each["object"]["metadata"].get("annotations", {}))
        for each in reply.lines
    ]


def watch(kube: KubeServer, name: str, seconds: float = 0.3) -> Reply:
    """A recorded watch, from this cluster's version of now, and shorter."""
    kube.last_bookmark_s = seconds / 2
    request = re.sub(rb"timeoutSeconds=\d+", b"timeoutSeconds=%g" % seconds, recording(name)[0])
    now = b"resourceVersion=%d" % kube.store.version
    return ask(kube.port, re.sub(rb"resourceVersion=221", now, request))


def test_a_watch_list_begins_with_what_is_there_and_a_mark(kube: KubeServer) -> None:
    real = kinds(recording("watchlist")[1])
    ours = kinds(watch(kube, "watchlist"))
    assert ours[:8] == real[:8] == [("ADDED", False)] * 7 + [("BOOKMARK", True)]
    assert ours[-1] == real[-1] == ("BOOKMARK", False)  # shortly before the end


def test_a_watch_list_of_nothing_is_its_mark(kube: KubeServer) -> None:
    assert kinds(watch(kube, "watchlist-empty"))[0] == kinds(recording("watchlist-empty")[1])[0]


def test_an_old_version_is_one_error_line_in_a_200(kube: KubeServer) -> None:
    kube.compact()
    request, real = recording("watch-old-version-410-event")
    ours = ask(kube.port, request.replace(b"resourceVersion=221", b"resourceVersion=2"))
    assert ours.code == real.code == 200
    assert plain(ours.lines) == plain(real.lines)


def test_a_future_version_is_silence(kube: KubeServer) -> None:
    reply = watch(kube, "watch-future-version")
    assert (reply.code, reply.body) == (200, b"")


def test_a_watch_tells_of_each_change_and_ends_cleanly(kube: KubeServer) -> None:
    since = kube.store.version
    new = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "new", "namespace": "vec"}}
    for number in "12":
        kube.put({**new, "data": {"n": number}})
    kube.remove("v1", "ConfigMap", "new", "vec")
    request, real = recording("watch-add-mod-del")
    now = b"resourceVersion=%d" % since
    request = re.sub(rb"timeoutSeconds=\d+", b"timeoutSeconds=0.2", request)
    reply = ask(kube.port, re.sub(rb"resourceVersion=221", now, request))
    assert kinds(reply) == kinds(real)
    versions = [int(each["object"]["metadata"]["resourceVersion"]) for each in reply.lines]
    assert versions == sorted(set(versions))


def test_what_leaves_a_selection_was_deleted_for_its_watcher(kube: KubeServer) -> None:
    since = kube.store.version
    for labels in ({"app": "a"}, {"app": "b"}, {"app": "a"}):
        value = pod("web-1", "shop")
        kube.put({**value, "metadata": {**value["metadata"], "labels": labels}})
    path = f"/api/v1/pods?watch=1&resourceVersion={since}&labelSelector=app%3Da&timeoutSeconds=0.2"
    reply = ask(kube.port, f"GET {path} HTTP/1.1\r\nConnection: close\r\n\r\n".encode())
    assert [each["type"] for each in reply.lines] == ["ADDED", "DELETED", "ADDED"]
