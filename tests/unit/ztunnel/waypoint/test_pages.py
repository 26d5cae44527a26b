"""The pages: what they show, and what they pass on."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from control.kit.http import HttpRequest, HttpResponse
from tests.support.processes.daemon import ask
from ztunnel.waypoint.envoy_admin import EnvoyAnswer, EnvoySilent
from ztunnel.waypoint.pages import WaypointPages, serve


class WaypointSubject:
    def __init__(self) -> None:
        self.missing: list[str] = []
        self.asked: list[str] = []
        self.called: list[str] = []
        self.envoy_is_there = True

    def status(self) -> dict[str, Any]:
        return {"identity": "x"}

    async def pending(self) -> list[str]:
        return self.missing

    async def metrics(self) -> tuple[dict[str, str], bytes]:
        return {"content-type": "text/plain"}, b"m 1\n"

    async def ask_envoy(self, target: str, body_bytes_max: int) -> EnvoyAnswer:
        self.asked.append(target)
        if not self.envoy_is_there:
            raise EnvoySilent("gone")
        return EnvoyAnswer(200, b"{}")

    def rotate(self) -> None:
        self.called.append("rotate")

    def quit(self) -> None:
        self.called.append("quit")


def asked(
    subject: WaypointSubject, path: str, method: str = "GET", route: str = "", **query: str
) -> HttpResponse:
    handler = WaypointPages(subject).admin()[method, route or path]
    return asyncio.run(handler(HttpRequest(method, path, query, {})))


def test_readiness_says_what_is_missing() -> None:
    subject = WaypointSubject()
    assert asked(subject, "/healthz/ready").status == 200
    subject.missing = ["envoy", "certificate"]
    answer = asked(subject, "/healthz/ready")
    assert answer.status == 500
    assert b"envoy, certificate" in answer.body
    assert json.loads(asked(subject, "/status").body)["pending"] == subject.missing
    assert asked(subject, "/healthz/live").status == 200


def test_envoys_own_pages_are_passed_on_for_reading() -> None:
    subject = WaypointSubject()
    answer = asked(subject, "/envoy/stats", route="/envoy/*", filter="a b")
    assert (answer.status, answer.body) == (200, b"{}")
    assert subject.asked == ["/stats?filter=a+b"]
    assert ("POST", "/envoy/*") not in WaypointPages(subject).admin()
    subject.envoy_is_there = False
    assert asked(subject, "/envoy/stats", route="/envoy/*").status == 502


def test_wishes_are_passed_on() -> None:
    subject = WaypointSubject()
    asked(subject, "/certificates/rotate", "POST")
    asked(subject, "/quitquitquit", "POST")
    assert subject.called == ["rotate", "quit"]
    assert asked(subject, "/logging", "POST", level="nonsense").status == 400


@pytest.mark.parametrize("taken", ["metrics", "socket"])
def test_a_page_that_is_not_to_be_had_costs_no_other(tmp_path: Path, taken: str) -> None:
    socket = tmp_path / "admin.sock"
    if taken == "socket":
        socket.write_text("not a socket")

    async def test() -> None:
        subject = WaypointSubject()
        other = tmp_path / "other.sock"
        metrics = "192.0.2.1:1" if taken == "metrics" else "off"  # an address of nobody's
        async with serve(subject, socket, metrics, "off"), serve(subject, other, "off", "off"):
            path = other if taken == "socket" else socket
            status, body = await ask(str(path), "/metrics", "GET")
            assert (status, body) == (200, b"m 1\n")

    asyncio.run(test())
