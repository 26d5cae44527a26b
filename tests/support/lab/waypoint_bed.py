"""A mesh with a waypoint: real ztunnels, a real control plane and a real Envoy, in a lab.

with waypoint_bed(folder) as bed:
    assert bed.get("client", "web").who in ("v1", "v2")
"""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from agent.cli.manifests import Ref
from agent.fetch import Answer, request
from agent.lab.manifests import Manifests
from agent.lab.waypoints import FOLDER as SOCKETS
from tests.support.kernel.netns import eventually
from tests.support.lab.mesh_bed import SOCKET_S, Bed, mesh_bed

FOLDER = Path(__file__).parent / "waypoint_lab"
ENROLLED = ("client", "other", "v1", "v2")
HTTP_PORT, GREETING_PORT = 8080, 9090  # their services have 80 and 90
WAYPOINT = "gate-1"


@dataclass(frozen=True)
class Reply:
    """`status` 0: the connection was refused or ended."""

    status: int
    who: str = ""
    body: dict[str, Any] = field(default_factory=dict)


REFUSED = Reply(0)


class WaypointBed(Bed):
    def virtual(self, service: str, family: int = 4) -> str:
        """A service's address."""
        found = Manifests.load(self.lab.manifests_folder).find(Ref("Service", "mesh", service))
        assert found is not None
        addresses = found[1].value["spec"]["clusterIPs"]
        return next(str(each) for each in addresses if (":" in each) is (family == 6))

    def open(self, pod: str, address: str, port: int) -> http.client.HTTPConnection:
        """A kept connection for requests."""
        connection = http.client.HTTPConnection("web.mesh", timeout=SOCKET_S)
        connection.sock = self.dial(pod, address, port)
        return connection

    def get(
        self, pod: str, service: str, path: str = "/", *, family: int = 4, **headers: str
    ) -> Reply:
        """One request on a connection of its own; a keyword is a header, `_` for `-`."""
        return self.get_at(pod, self.virtual(service, family), 80, path, **headers)

    def get_at(self, pod: str, address: str, port: int, path: str = "/", **headers: str) -> Reply:
        try:
            connection = self.open(pod, address, port)
        except OSError:
            return REFUSED
        try:
            return ask(connection, path, **headers)
        finally:
            connection.close()

    def waypoint(self, page: str, method: str = "GET", pod: str = WAYPOINT) -> Answer:
        return request(self.lab.run_dir / SOCKETS / f"mesh.{pod}.sock", method, page)

    def answers(self, pod: str = "client", service: str = "web") -> None:
        """Wait until requests pass; whatever was changed before is known by then or soon."""
        eventually(lambda: self.get(pod, service).status == 200, "the waypoint serves", 20)

    @contextmanager
    def objects(self, *texts: str) -> Iterator[None]:
        """Objects that are there while the context lasts; waited for neither way."""
        self.apply("---\n".join(texts))
        try:
            yield
        finally:
            for text in texts:
                meta = yaml.safe_load(text)["metadata"]
                self.delete(yaml.safe_load(text)["kind"], meta["namespace"], meta["name"])


def ask(connection: http.client.HTTPConnection, path: str = "/", **headers: str) -> Reply:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        connection.request("GET", path, headers=named)
        response = connection.getresponse()
        data = response.read()
    except (OSError, http.client.HTTPException):
        return REFUSED
    try:
        body = json.loads(data)
    except ValueError:
        body = {"text": data.decode(errors="replace")}
    return Reply(response.status, str(body.get("who", "")), body)


def greeting(sock: socket.socket) -> str:
    """The server's first line, which it sends before it hears anything; "": it did not come."""
    try:
        return sock.recv(100).decode().strip()
    except OSError:
        return ""


@contextmanager
def waypoint_bed(folder: Path, workers: int = 1) -> Iterator[WaypointBed]:
    with mesh_bed(folder, workers, manifests=FOLDER, kind=WaypointBed, enrolled=()) as bed:
        bed.answers()
        yield bed
