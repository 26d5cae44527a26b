"""The whole control plane: runs its parts until a signal."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Awaitable, Coroutine, Iterator
from contextlib import AsyncExitStack, closing
from pathlib import Path
from typing import Any, TypeVar

from control.kit import http, lock
from control.kit.clock import SystemClock
from control.kit.door import LOOPBACK_NAMES, is_loopback_port
from control.kit.errors import ConfigError, MeshError
from control.kit.http import HttpServer
from control.kit.log import event
from control.kit.memory import AGED_MAX, SETTLE_AT_S, settle, spare_collector, uncollected
from control.kit.surplus import give_back
from control.kit.unix_socket import Unseen
from control.kit.version import version
from control.server.admin import AdminPages, Callers, metrics_routes
from control.server.assembly import Plane, PlaneConfig, assemble
from control.server.ca.stored import StoredAuthority
from control.server.cluster import ClusterSide
from control.server.front.listener import GrpcSocket, TlsFront, bind
from control.server.metrics import Metrics
from control.server.ports import ServingCertificates, TlsContexts, make_server
from control.server.sources.snapshot import Snapshot
from control.server.xds.publish import Publisher

log = logging.getLogger("control")

_Found = TypeVar("_Found")

REVOKED_EVERY_S = 1.0
STOP_GRACE_S = 1.0  # streams were ended before; this is for calls that are being answered


async def serve(config: PlaneConfig) -> None:
    """Run until SIGTERM or SIGINT. Raises ConfigError when it cannot start."""
    with lock.held(config.state / "control.lock", "another tulle-control"):
        await _serve(config)


async def _serve(config: PlaneConfig) -> None:
    stop = _stop_on_signals()
    spare_collector()
    async with AsyncExitStack() as stack:
        cluster, stored, authority = None, None, None
        if config.cluster is not None:
            cluster = ClusterSide(config.cluster, Metrics(), SystemClock())
            await stack.enter_async_context(cluster.client)
            stored = cluster.stored(config.settings, config.cert_ttl_max, config.state / "ca")
        if stored is not None:
            authority = await _unless(stop, stored.first())
        if cluster is not None and not stop.is_set():
            await cluster.share_tokens(config.state)
        if not stop.is_set():
            await _begin(assemble(config, cluster, authority), stored, stop)
    event(log, logging.INFO, "control.stopped")


async def _begin(plane: Plane, stored: StoredAuthority | None, stop: asyncio.Event) -> None:
    async with plane.source.opened() as snapshots:
        first = await _unless(stop, anext(snapshots))
        if first is not None:
            # Published before anybody can ask for it.
            with uncollected():
                plane.publisher.offer(first)
                plane.publisher.publish()
            await _run(plane, stored, snapshots, stop)


async def _unless(stop: asyncio.Event, reading: Awaitable[_Found]) -> _Found | None:
    """The first content, however long that takes; None: we were told to stop before."""
    found: list[_Found] = []
    failure: MeshError | OSError | None = None

    async def read() -> None:
        nonlocal failure
        try:
            found.append(await reading)
        except (MeshError, OSError) as exc:
            failure = exc  # not to be one of a group

    async with asyncio.TaskGroup() as tasks:
        both = [
            tasks.create_task(read(), name="first"),
            tasks.create_task(stop.wait(), name="stop"),
        ]
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        for each in both:
            each.cancel()
    if failure is not None:
        raise failure
    return found[0] if found else None


def _beside(
    plane: Plane, stored: StoredAuthority | None, stack: AsyncExitStack
) -> Iterator[Coroutine[Any, Any, None]]:
    """Endless work with the API server, besides reading."""
    if plane.cluster is None or plane.marks is None:
        return
    stack.push_async_callback(plane.cluster.election.release)
    yield plane.cluster.election.run()
    yield plane.cluster.writer(plane.publisher, plane.authorities).run()
    yield plane.marks.run()
    yield plane.publisher.let_go()
    if plane.known is not None:
        yield plane.known.run(plane.cluster.client)
    if stored is not None:
        yield stored.follow(plane.authorities)


async def _run(
    plane: Plane,
    stored: StoredAuthority | None,
    snapshots: AsyncIterator[Snapshot],
    stop: asyncio.Event,
) -> None:
    config = plane.config
    certificates = ServingCertificates(plane.authorities, config.serving_names(), plane.clock)
    async with AsyncExitStack() as stack:
        # Ports and paths that may be taken come first. The admin socket is found last: a start that
        # fails must not have displaced another control plane's.
        where = _where(config.admin)
        door = stack.enter_context(closing(Unseen(where))) if isinstance(where, Path) else None
        metrics = stack.enter_context(http.bind(config.metrics))
        ports = await _open_ports(plane, TlsContexts(certificates), stack)
        admin = AdminPages(
            plane.publisher,
            plane.delta,
            plane.authorities,
            plane.source,
            plane.clock,
            Callers(plane.arrivals, plane.door, plane.delta),
            plane.cluster.leader if plane.cluster is not None else None,
        )
        # A page that answers says "ready": by now the first content is served.
        pages = HttpServer(metrics_routes(plane.metrics), door="metrics")
        await stack.enter_async_context(pages.listen(metrics))
        names = None if door is not None else LOOPBACK_NAMES
        server = HttpServer(admin.routes(), names, door="admin_socket" if door else "admin")
        await stack.enter_async_context(server.listen(door.sock if door else where))
        if door is not None:
            door.show()
        _tell_started(plane, ports)
        async with asyncio.TaskGroup() as tasks:
            running = [
                tasks.create_task(_follow(snapshots, plane.publisher), name="source"),
                tasks.create_task(plane.publisher.run(), name="publish"),
                tasks.create_task(plane.publisher.run_captures(), name="publish.captures"),
                tasks.create_task(plane.enrolment.run(), name="captures.save"),
                tasks.create_task(_end_revoked(plane), name="revocations"),
                tasks.create_task(give_back(), name="memory"),
                tasks.create_task(_settle(), name="memory.settle"),
            ]
            running += [tasks.create_task(each) for each in _beside(plane, stored, stack)]
            await stop.wait()
            plane.delta.close()
            for task in running:
                task.cancel()


async def _open_ports(plane: Plane, contexts: TlsContexts, stack: AsyncExitStack) -> list[int]:
    """Serve gRPC until the stack is unwound; the port of each listening socket."""
    sockets = [each for where in plane.config.listen for each in bind(where)]
    inner = GrpcSocket()
    stack.callback(inner.close)
    server = make_server(inner.path, plane.door, plane.delta, plane.csr, plane.enrolment)
    tasks = await stack.enter_async_context(asyncio.TaskGroup())
    await server.start()
    front = TlsFront(plane.arrivals, plane.clock, contexts.current, inner.path, tasks)
    await front.start(sockets)
    # Unwound from the last: no new connections, then the end of streams, then its delivery.
    stack.push_async_callback(front.finish)
    stack.push_async_callback(server.stop, STOP_GRACE_S)
    stack.callback(front.close)
    return [each.getsockname()[1] for each in sockets]


async def _settle() -> None:
    """Beside the loop: a large process takes 30 ms, most of it in calls that let others go on."""
    passed_s = 0.0
    for after_s in SETTLE_AT_S:
        await asyncio.sleep(after_s - passed_s)
        await asyncio.to_thread(settle, AGED_MAX)
        passed_s = after_s


async def _end_revoked(plane: Plane) -> None:
    """New calls are checked as they come; this is for those under way."""
    while True:
        await asyncio.sleep(REVOKED_EVERY_S)
        plane.door.end(plane.tokens.why_over)


async def _follow(snapshots: AsyncIterator[Snapshot], publisher: Publisher) -> None:
    async for snapshot in snapshots:
        publisher.offer(snapshot)


def _tell_started(plane: Plane, ports: list[int]) -> None:
    event(
        log,
        logging.INFO,
        "control.started",
        version=version(),
        listen=",".join(plane.config.listen),
        ports=ports,
        source=plane.source.name,
        trust_domain=plane.config.settings.trust_domain,
    )


def _stop_on_signals() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, stop.set)
    return stop


def _where(text: str) -> str | Path:
    """A path has a slash; everything else is address:port, of this host alone."""
    if "/" in text:
        return Path(text)
    if not is_loopback_port(text):
        raise ConfigError(f"--admin: {text} is no loopback address: others could reach the pages")
    return text
