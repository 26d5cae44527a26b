"""Pages for people and programs: admin, metrics, readiness. Reads, and passes wishes on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from control.kit import http
from control.kit.door import LOOPBACK_NAMES
from control.kit.http import Handler, HttpRequest, HttpResponse, alive, as_json, text
from control.kit.log import RESET, current_levels, event
from control.kit.unix_socket import Unseen, is_served
from control.model.identity import SpiffeId, parse_spiffe_id
from ztunnel.config import OFF
from ztunnel.supervisor.metrics import Sample

if TYPE_CHECKING:
    from control.kit.metrics import SharedPage

log = logging.getLogger("admin")

PAGES_EVERY_S = 1.0  # between tries to have a port that is taken
PAGES_LATE_S = 60.0  # at last, for a folder that is not to be written to

_INDEX = """tulle-ztunnel
/config_dump            what this node knows, holds and has open
/logging                GET: levels; POST ?level=info or ?level=info,access:debug or ?reset
/certificates/rotate    POST: renew now, ?identity= for one
/pools                  tunnels by key
/metrics                as on the metrics port
/healthz/ready          as on the readiness port
/healthz/live           its event loop turns
/quitquitquit           POST: drain and end
"""


class Subject(Protocol):
    """The supervisor, as far as the pages show or change it."""

    async def config_dump(self) -> dict[str, Any]: ...

    async def pools(self) -> dict[str, Any]: ...

    async def samples(self) -> list[Sample]: ...

    def pending(self) -> list[str]: ...

    def set_log_level(self, spec: str) -> None: ...

    def rotate(self, identity: SpiffeId | None) -> list[SpiffeId]: ...

    def quit(self) -> None: ...


class Pages:
    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._shared: SharedPage | None = None

    def admin(self) -> http.Routes:
        routes: dict[tuple[str, str], Handler] = {
            ("GET", "/"): self._index,
            ("GET", "/config_dump"): self._config_dump,
            ("GET", "/pools"): self._pools,
            ("GET", "/logging"): self._levels,
            ("POST", "/logging"): self._set_level,
            ("POST", "/certificates/rotate"): self._rotate,
            ("POST", "/quitquitquit"): self._quit,
        }
        return {**routes, **self.metrics(), **self.readiness()}

    def local(self, socket_path: Path) -> http.Routes:
        """Pages of the loopback port: any process of this host may ask for them."""
        elsewhere = http.elsewhere("admin", socket_path, "--admin-on-tcp")
        admin = {(method, path): elsewhere for method, path in self.admin() if path != "/"}
        public = {**self.metrics(), **self.readiness()}
        return {**admin, ("GET", "/"): self._index, **public}

    def metrics(self) -> http.Routes:
        return {("GET", "/metrics"): self._metrics, ("GET", "/stats/prometheus"): self._metrics}

    def readiness(self) -> http.Routes:
        return {("GET", "/healthz/ready"): self._ready, ("GET", "/healthz/live"): alive}

    async def _index(self, _: HttpRequest) -> HttpResponse:
        return text(_INDEX)

    async def _config_dump(self, _: HttpRequest) -> HttpResponse:
        # A large mesh takes a second to encode; the agent's requests must not wait for that.
        return await asyncio.to_thread(as_json, await self._subject.config_dump())

    async def _pools(self, _: HttpRequest) -> HttpResponse:
        return as_json(await self._subject.pools())

    async def _levels(self, _: HttpRequest) -> HttpResponse:
        return as_json(current_levels())

    async def _set_level(self, request: HttpRequest) -> HttpResponse:
        spec = request.query.get("level", RESET)  # Istio's way to reset is `?reset`
        try:
            self._subject.set_log_level(spec)
        except ValueError as exc:
            return problem(str(exc), "bad_level")
        return as_json(current_levels())

    async def _rotate(self, request: HttpRequest) -> HttpResponse:
        wanted = request.query.get("identity")
        try:
            identity = parse_spiffe_id(wanted) if wanted is not None else None
        except ValueError as exc:
            return problem(str(exc), "bad_identity")
        rotating = self._subject.rotate(identity)
        if wanted is not None and not rotating:
            return problem(f"no pod here is {wanted}", "unknown_identity", 404)
        return as_json({"rotating": [str(each) for each in rotating]})

    async def _quit(self, _: HttpRequest) -> HttpResponse:
        self._subject.quit()
        return text("draining\n")

    async def _metrics(self, request: HttpRequest) -> HttpResponse:
        if self._shared is None:
            self._shared = await asyncio.to_thread(_shared_page, self._subject)
        headers, body = await self._shared.get(request.headers)
        return HttpResponse(200, body, headers)

    async def _ready(self, _: HttpRequest) -> HttpResponse:
        pending = self._subject.pending()
        if not pending:
            return text("ready\n")
        return text(f"not ready, pending: {', '.join(pending)}\n", 500)


def _shared_page(subject: Subject) -> SharedPage:
    """Load Prometheus' client, a tenth of a start's modules, for the first who asks for it."""
    from ztunnel.supervisor.metrics_page import shared_page

    return shared_page(subject.samples)


def problem(error: str, reason: str, status: int = 400) -> HttpResponse:
    return as_json({"error": error, "reason": reason}, status)


@dataclass(frozen=True, slots=True)
class Doors:
    """Addresses of the pages, or OFF for no such page."""

    socket_path: Path
    admin: str
    metrics: str
    readiness: str
    admin_on_tcp: bool = False  # every admin page for any process of this host


class OpenPages:
    def __init__(self, ports: AsyncExitStack, waiting: asyncio.Task[None]) -> None:
        self._ports = ports
        self._waiting = waiting

    async def give_up_ports(self) -> None:
        """Leave them to a newer ztunnel; the unix socket is its own already."""
        self._waiting.cancel()
        await self._ports.aclose()


@asynccontextmanager
async def serve(subject: Subject, doors: Doors) -> AsyncIterator[OpenPages]:
    """Serve all pages while the context lasts.

    A port that is taken costs that page and nothing else: carrying traffic comes first, and the
    unix socket still answers.
    """
    pages = Pages(subject)
    async with AsyncExitStack() as stack, AsyncExitStack() as opened:
        on_socket = http.HttpServer(pages.admin(), door="admin_socket")
        await _open_socket(stack, on_socket, doors.socket_path)
        on_tcp = pages.admin() if doors.admin_on_tcp else pages.local(doors.socket_path)
        names = LOOPBACK_NAMES if doors.admin_on_tcp else None
        ports = (
            (http.HttpServer(on_tcp, names, door="admin"), doors.admin, "admin"),
            (http.HttpServer(pages.metrics(), door="metrics"), doors.metrics, "metrics"),
            (http.HttpServer(pages.readiness(), door="readiness"), doors.readiness, "readiness"),
        )
        missing = [each for each in ports if each[1] not in OFF and not await _open(opened, *each)]
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(_open_when_free(opened, missing), name="pages")
            keeping = _keep_socket(stack, on_socket, doors.socket_path)
            kept = tasks.create_task(keeping, name="pages.socket")
            yield OpenPages(opened, waiting)
            waiting.cancel()
            kept.cancel()


async def _open_socket(stack: AsyncExitStack, server: http.HttpServer, path: Path) -> bool:
    """In an upgrade two ztunnels serve pods; the newer one has the path."""
    try:
        door = stack.enter_context(closing(Unseen(path, takes_over=True)))
    except OSError as exc:
        _tell_missing("admin_socket", path, exc)
        return False
    await stack.enter_async_context(server.listen(door.sock))
    door.show()
    return True


async def _keep_socket(stack: AsyncExitStack, server: http.HttpServer, path: Path) -> None:
    """Have the path again when nobody serves it: a newer ztunnel may take it over and then die."""
    wait_s = PAGES_EVERY_S
    while True:
        await asyncio.sleep(wait_s)
        is_there = is_served(path) or await _open_socket(stack, server, path)
        # Each failure is a line in the log.
        wait_s = PAGES_EVERY_S if is_there else min(2 * wait_s, PAGES_LATE_S)


def _tell_missing(page: str, address: str | Path, error: Exception) -> None:
    event(log, logging.ERROR, "page.not_served", page=page, address=address, error=error)


async def _open(
    stack: AsyncExitStack, server: http.HttpServer, where: str, what: str, *, again: bool = False
) -> bool:
    """`again`: that it is not to be had has been said."""
    try:
        await stack.enter_async_context(server.listen(where))
    except (OSError, ValueError) as exc:
        if not again:
            _tell_missing(what, where, exc)
        return False
    if again:
        event(log, logging.INFO, "page.served", page=what, address=where)
    return True


async def _open_when_free(
    stack: AsyncExitStack, missing: list[tuple[http.HttpServer, str, str]]
) -> None:
    """In an upgrade the older ztunnel has the ports until it ends."""
    while missing:
        await asyncio.sleep(PAGES_EVERY_S)
        missing = [each for each in missing if not await _open(stack, *each, again=True)]
