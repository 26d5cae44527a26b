"""Admin pages as values: what a person reads about mesh, clients and problems."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from control.kit import log as kit_log
from control.kit.http import HttpRequest, HttpResponse
from control.server.admin import SLICE, AdminPages, Callers, metrics_routes
from control.server.ca.keys import load_authority
from control.server.callers.budget import node_tenant
from control.server.callers.refusals import CallRefusal
from control.server.callers.tokens import Caller
from control.server.compile.settings import Settings
from control.server.sources.captured import CapturedSet
from control.server.sources.directory import DirectorySource
from control.server.sources.lasting import LastingSource
from control.server.sources.state_file import StateFile
from control.server.xds.client import Client
from control.server.xds.node_view import NodeView
from control.server.xds.publish import Publisher
from control.server.xds.rows import client_row
from control.server.xds.session import DeltaSession
from control.server.xds.streams import DeltaService
from control.wire.delta import DeltaClient, NodeInfo
from control.wire.types import ADDRESS_TYPE
from tests.support.authorities import held
from tests.support.control_door import DoorBench
from tests.support.manifests import load, pod, policy

SERVICE = """
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.9.0.1, selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
"""
MANIFESTS = (
    pod(labels="app: web") + SERVICE + policy("{action: DENY, rules: [{}]}") + policy("5", name="x")
)


class Bench(DoorBench):
    def __init__(self, folder: Path) -> None:
        super().__init__()
        captured = CapturedSet(folder / "captured", is_new=True)
        self.publisher = Publisher(Settings(), captured, self.metrics, self.clock)
        self.publisher.offer(load(MANIFESTS))
        self.publisher.publish()
        self.delta = DeltaService(
            self.publisher, self.door, self.arrivals.received, self.metrics, self.clock
        )
        authority = load_authority(folder / "ca", "cluster.local", self.clock)
        source = DirectorySource(Path("/m"), self.clock)
        self.pages = AdminPages(
            self.publisher,
            self.delta,
            held(authority, self.clock),
            LastingSource(source, StateFile(folder / "state", "/m"), self.clock),
            self.clock,
            Callers(self.arrivals, self.door, self.delta),
        )

    def ask(self, method: str, path: str, **query: str) -> HttpResponse:
        handler = self.pages.routes()[method, path]
        return asyncio.run(answer(handler, HttpRequest(method, path, query, {})))

    def get(self, path: str) -> Any:
        response = self.ask("GET", path)
        assert response.status == 200
        return json.loads(response.body)


async def answer(handler: Any, request: HttpRequest) -> HttpResponse:
    response: HttpResponse = await handler(request)
    return response


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_status_says_what_is_served_to_whom_and_what_is_wrong(bench: Bench) -> None:
    session = DeltaSession(NodeView(bench.publisher.cache, "n1"))
    client = DeltaClient(NodeInfo("ztunnel~x"), [ADDRESS_TYPE])
    session.receive(next(iter(client.opening())))
    session.take()
    bench.delta.clients.add(
        Client("ztunnel~x", Caller("n1", "z"), "10.0.0.1:1", bench.clock.now(), session)
    )
    status = bench.get("/status")
    assert (status["trust_domain"], status["sources"], status["generation"]) == (
        "cluster.local",
        ["/m"],
        1,
    )
    assert status["objects"]["Pod"] == 1
    assert status["source"] == {"is_kept": False, "age_s": 0.0, "trouble": ""}
    assert status["resources"] == {"Address": 2, "Authorization": 2, "Pod": 1, "Namespace": 1}
    assert status["root"]["not_after"].endswith("Z")
    (node,) = status["nodes"]
    assert (node["id"], node["node"], node["since"]) == ("ztunnel~x", "n1", "2026-01-01T00:00:00Z")
    assert node["types"]["Address"]["known"] == 2
    (problem,) = status["problems"]
    assert problem["object"] == "AuthorizationPolicy shop/x"
    assert bench.get("/problems") == [problem]


def test_each_resource_has_its_row(bench: Bench) -> None:
    (workload,) = bench.get("/workloads")
    assert (workload["name"], workload["addresses"], workload["protocol"]) == (
        "web",
        ["10.1.0.1"],
        "NONE",
    )
    assert workload["identity"] == "spiffe://cluster.local/ns/shop/sa/default"
    assert workload["services"] == ["shop/web.shop.svc.cluster.local"]
    (service,) = bench.get("/services")
    assert service["ports"][0] == {"port": 80, "target": 8080, "app": "UNKNOWN"}
    (intent,) = bench.get("/pods")
    assert (intent["node"], intent["enrolled"], intent["reason"]) == ("n1", False, "no label")
    assert {each["name"] for each in bench.get("/policies")} == {"p", "x"}


def test_config_is_what_nodes_are_sent(bench: Bench) -> None:
    config = bench.get("/config")
    assert set(config["addresses"]) == {
        "Kubernetes//Pod/shop/web",
        "shop/web.shop.svc.cluster.local",
    }
    assert config["addresses"]["Kubernetes//Pod/shop/web"]["workload"]["name"] == "web"
    assert config["policies"]["shop/p"]["action"] == "DENY"


def test_levels_are_shown_set_and_refused(bench: Bench) -> None:
    before = kit_log.current_levels()[""]
    try:
        assert bench.ask("POST", "/log", level="error").status == 200
        assert bench.get("/log")[""] == "error"
        refused = bench.ask("POST", "/log", level="loud")
        assert refused.status == 400
        assert json.loads(refused.body)["reason"] == "bad_level"
    finally:
        kit_log.set_level(before)


def test_metrics_and_readiness(bench: Bench) -> None:
    routes = metrics_routes(bench.metrics)
    page = asyncio.run(answer(routes["GET", "/metrics"], HttpRequest("GET", "/metrics", {}, {})))
    assert b'tulle_control_objects{kind="Pod"} 1.0' in page.body
    ready = asyncio.run(answer(routes["GET", "/healthz/ready"], HttpRequest("GET", "/", {}, {})))
    assert (ready.status, ready.body) == (200, b"ready\n")
    live = asyncio.run(answer(routes["GET", "/healthz/live"], HttpRequest("GET", "/", {}, {})))
    assert live.status == 200


def test_a_client_that_said_nothing_yet_has_a_row(bench: Bench) -> None:
    session = DeltaSession(NodeView(bench.publisher.cache, "n1"))
    row = client_row(Client("a", Caller("n1", "z"), "p", bench.clock.now(), session))
    assert row["types"] == {}


def test_callers_have_their_figures_and_those_refused_most_come_first(bench: Bench) -> None:
    bench.delta.streams.take(node_tenant("n1"))
    bench.door.calls.take(node_tenant("n1"), 3)
    for _ in range(2):
        bench.arrivals.refused(node_tenant("n2"), "xds", CallRefusal.STREAMS_MAX)
    rows = bench.get("/callers")
    assert [(each["kind"], each["name"]) for each in rows] == [
        ("node", "n2"),
        ("node", "n1"),
        ("source", "10.0.0.1"),
    ]
    assert rows[0]["refused"] == {"streams_max": 2}
    assert (rows[1]["streams"], rows[1]["calls"], rows[1]["refused"]) == (1, 3, {})
    assert rows[2]["unadmitted"] == 1
    assert len({frozenset(each) for each in rows}) == 1, "the same columns"


def test_a_page_of_many_rows_lets_others_have_the_loop(bench: Bench) -> None:
    bench.publisher.offer(load("".join(pod(f"p-{number}") for number in range(200))))
    bench.publisher.publish()
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def both(path: str) -> HttpResponse:
        async with asyncio.TaskGroup() as tasks:
            counting = tasks.create_task(count(), name="count")
            page = await answer(bench.pages.routes()["GET", path], HttpRequest("GET", path, {}, {}))
            counting.cancel()
        return page

    for path in ("/workloads", "/pods", "/config"):
        turns = 0
        found = json.loads(asyncio.run(both(path)).body)
        assert len(found.get("addresses") if path == "/config" else found) == 200
        assert turns >= 200 // SLICE
