"""Our sessions with a real Envoy: it asks and acknowledges as they expect, and nothing fails while
what it is told changes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from control.model.route import BackendEndpoint
from control.wire.types import CLUSTER_TYPE
from tests.support.engine.tunnel_bed import eventually
from tests.support.peers.session_server import SessionServer
from tests.support.peers.tunnel_client import ask
from tests.support.waypoint.bed import WaypointBed, backend, by_name, front, waypoint_bed

VIP = "10.96.0.1"
SCOPES = {"requests|shop/web:80", f"tunnel|{VIP}:80", "tunnel|web.shop.svc.cluster.local:80"}


class Sessions:
    """A waypoint whose Envoy is told by our sessions; `web` is its service, `a` and `b` pods."""

    def __init__(self, bed: WaypointBed, server: SessionServer) -> None:
        self.bed, self.server = bed, server
        self.pods: dict[str, BackendEndpoint] = {name: bed.pod(name) for name in ("a", "b")}

    def show(self, *pods: str, gone: tuple[str, ...] = ()) -> None:
        """`web` is served by the last of these; backends of those gone are removed."""
        backends = by_name(*(backend(f"shop/{each}:80", self.pods[each]) for each in pods))
        made = front("shop/web:80", VIP, backend=f"shop/{pods[-1]}:80")
        self.bed.apply(by_name(made), {**backends, **{f"shop/{each}:80": None for each in gone}})

    def settled(self) -> list[tuple[str, list[str], list[str]]]:
        """All that was said since the last time, once each response is acknowledged."""
        found: list[tuple[str, list[str], list[str]]] = []

        def is_quiet() -> bool:
            found[:] = self.server.settled()
            return bool(found)

        eventually(is_quiet, "Envoy has acknowledged everything")
        return found

    def who(self) -> str:
        with self.bed.tunnel("client", f"{VIP}:80") as tunnel:
            assert tunnel.status == 200
            answer = ask(tunnel, "/")
            return f"{answer.status} {answer.who}"


@pytest.fixture
def sessions(tmp_path: Path) -> Iterator[Sessions]:
    with waypoint_bed(tmp_path, ads=SessionServer(str(tmp_path / "ads.sock"))) as bed:
        assert isinstance(bed.ads, SessionServer)
        found = Sessions(bed, bed.ads)
        found.show("a")
        bed.start()
        found.settled()
        yield found
        assert found.server.nacks == []


def test_a_new_cluster_is_acknowledged_with_its_endpoints_and_goes_last(sessions: Sessions) -> None:
    sessions.show("b", gone=("a",))
    assert sessions.settled() == [
        ("< Cluster", ["shop/b:80"], []),
        ("> ClusterLoadAssignment", ["shop/b:80"], []),
        ("< ClusterLoadAssignment", ["shop/b:80"], []),
        ("+ Cluster", [], []),
        ("< RouteConfiguration", ["shop/web:80"], []),
        ("+ ClusterLoadAssignment", [], []),
        ("+ RouteConfiguration", [], []),
        ("< Cluster", [], ["shop/a:80"]),
        ("> ClusterLoadAssignment", [], ["shop/a:80"]),
        ("+ Cluster", [], []),
    ]
    assert sessions.who() == "200 b"


def test_a_service_that_goes_gives_its_names_back(sessions: Sessions) -> None:
    sessions.bed.apply({"shop/web:80": None}, {"shop/a:80": None})
    said = sessions.settled()
    assert [(kind, set(removed)) for kind, _, removed in said] == [
        ("< ScopedRouteConfiguration", SCOPES),
        ("> RouteConfiguration", {"shop/web:80"}),
        ("+ ScopedRouteConfiguration", set()),
        ("< Cluster", {"shop/a:80"}),
        ("> ClusterLoadAssignment", {"shop/a:80"}),
        ("+ Cluster", set()),
    ]


def test_one_that_returns_is_told_the_differences(sessions: Sessions) -> None:
    sessions.server.lose()
    sessions.show("a", "b", gone=("a",))
    eventually(lambda: sessions.who() == "200 b", "it has come back")
    told = [each for each in sessions.settled() if each[0].startswith("<") and (each[1] or each[2])]
    assert told == [
        ("< Cluster", ["shop/b:80"], []),
        ("< ClusterLoadAssignment", ["shop/b:80"], []),
        ("< RouteConfiguration", ["shop/web:80"], []),
        ("< Cluster", [], ["shop/a:80"]),
    ]


def test_no_request_fails_while_backends_are_replaced(sessions: Sessions) -> None:
    answers: list[str] = []
    over = threading.Event()

    def keep_asking() -> None:
        while not over.is_set():
            answers.append(sessions.who())

    asking = [threading.Thread(target=keep_asking) for _ in range(2)]
    for each in asking:
        each.start()
    for number in range(20):
        new, old = ("b", "a") if number % 2 == 0 else ("a", "b")
        sessions.show(new, gone=(old,))
        eventually(lambda new=new: answers[-1:] == [f"200 {new}"], "the new one answers")
    over.set()
    for each in asking:
        each.join(10)
    assert set(answers) == {"200 a", "200 b"}


def test_what_it_does_not_take_is_said_and_the_rest_goes_on(sessions: Sessions) -> None:
    sessions.server.put({CLUSTER_TYPE: {"bad": b"\x0a\x03bad\x10\x63"}})
    sessions.show("b")
    eventually(lambda: sessions.who() == "200 b", "the good ones are taken")
    assert sessions.server.nacks, "alone, or along with the other and then alone"
    assert all(each.startswith("Cluster: ") and "bad" in each for each in sessions.server.nacks)
    sessions.server.nacks.clear()
