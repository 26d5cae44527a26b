"""The running agent: every part in one task group. It stops without releasing any pod."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Collection, Coroutine, Iterator
from contextlib import AsyncExitStack, closing, contextmanager
from typing import Any

from agent.access import Access
from agent.admin import AgentAdmin
from agent.checks.node import node_checks
from agent.cni.door import DOOR
from agent.cni.part import CniPart
from agent.config import LOCK, AgentConfig, CniConfig
from agent.cri.client import SOCKETS
from agent.cri.follow import RuntimeFollower
from agent.datapath import bpffs
from agent.datapath.folder import HOLDER
from agent.datapath.node import NodeDatapath
from agent.direct.off import Off
from agent.direct.path import DirectPath
from agent.enrol.enroller import Enroller, Host
from agent.intents import CaptureReporter, Changed, Intents
from agent.kubelet.watch import KubeletWatch
from agent.refused import RefusedLog
from agent.registry import NamespaceGone, Registry, opened_again
from agent.reports import Replicas, report_captures
from agent.status import Agent
from agent.uninstall import OTHER
from agent.whereabouts import Whereabouts
from agent.zds import ZdsServer, listening
from control.kit import http, lock
from control.kit.clock import Clock, SystemClock
from control.kit.log import event
from control.kit.memory import SETTLE_AT_S, release, settle
from control.kit.unix_socket import Unseen
from control.model.intent import Intent

log = logging.getLogger("agent")

# Unused memory goes back to the kernel some time after a report, and in any case now and then.
RELEASE_EVERY_S = 15.0


class Stopped(Exception):
    """SIGTERM or SIGINT arrived."""


async def serve(chosen: AgentConfig) -> None:
    """Run until a signal; captured pods stay captured."""
    chosen.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    async with AsyncExitStack() as stack:
        if chosen.kubernetes:  # a crash there would be punished with a pause of minutes
            await stack.enter_async_context(lock.held_in_turn(chosen.folder / LOCK, OTHER))
        else:
            stack.enter_context(lock.held(chosen.folder / LOCK, OTHER))
        bpffs.ensure(chosen.bpffs)
        # An agent of this node's name that has another run folder would share the pins with it.
        other = f"another agent of node {chosen.node}, with a run folder of its own,"
        stack.enter_context(lock.held_folder(chosen.pin_root / HOLDER, other))
        await _serve(chosen)


async def _serve(chosen: AgentConfig) -> None:
    clock = SystemClock()
    datapath = NodeDatapath.open(
        chosen.pin_root,
        chosen.cgroup_root,
        chosen.cache,
        wants_shortcuts=chosen.direct and chosen.shortcut,
    )
    known = Registry(chosen.folder / "state")
    known.load()
    direct = _direct_path(chosen, datapath, known, clock)
    is_direct = chosen.direct and isinstance(direct, DirectPath)
    leave_s = chosen.drain_s, chosen.linger_s
    host = Host(chosen.node, chosen.cgroup_root, *leave_s, direct=is_direct)
    enroller = Enroller(host, datapath, known, clock, direct)
    access = Access(chosen.control, chosen.control_root, chosen.control_name, chosen.token)
    cni = None if chosen.cni is None else _cni(chosen, chosen.cni, clock)
    namespaces = None if cni is None else cni.namespaces_changed
    intents = Intents(chosen.node, chosen.control, access.stream, clock, namespaces=namespaces)
    runtime = _runtime(chosen, enroller, intents, clock)
    kubelet = KubeletWatch(datapath.kubelet, chosen.cgroup_root, chosen.kubelet_port, clock)
    parts = (datapath, known, enroller, intents, direct, kubelet, runtime, cni)
    agent = Agent(chosen, clock, clock.now(), *parts)
    enroller.adopt()
    try:
        await _run(agent, access)
    finally:
        datapath.close()


def _cni(chosen: AgentConfig, cni: CniConfig, clock: Clock) -> CniPart:
    sockets = SOCKETS if chosen.cri_socket is None else (chosen.cri_socket,)
    return CniPart(cni, chosen.node, chosen.folder, clock, sockets)


def _runtime(
    chosen: AgentConfig, enroller: Enroller, intents: Intents, clock: Clock
) -> RuntimeFollower | None:
    if not chosen.kubernetes:
        return None
    sockets = SOCKETS if chosen.cri_socket is None else (chosen.cri_socket,)
    return RuntimeFollower(enroller, lambda: intents.synced, clock, sockets)


def _direct_path(
    chosen: AgentConfig, datapath: NodeDatapath, known: Registry, clock: Clock
) -> DirectPath | Off:
    @contextmanager
    def netns_of(uid: str) -> Iterator[int]:
        registration = known.get(uid)
        if registration is None:
            raise NamespaceGone(f"{uid} is not registered")
        with opened_again(registration) as netns_fd:
            yield netns_fd

    if datapath.direct is None:
        return Off(datapath.direct_obstacle or "kernel")
    return DirectPath(
        datapath.direct, clock, netns_of, datapath.set_plaintext, grants=chosen.direct
    )


async def _run(agent: Agent, access: Access) -> None:
    enroller, intents = agent.enroller, agent.intents
    admin = AgentAdmin(agent, lambda: node_checks(agent))
    ztunnels = ZdsServer(enroller.serve_ztunnel, agent.clock)
    async with AsyncExitStack() as stack:
        # None of them is found before all of them are there.
        socket_path = agent.config.folder / "agent.sock"
        pages = stack.enter_context(closing(Unseen(socket_path)))
        routes = admin.routes() if agent.cni is None else {**admin.routes(), **agent.cni.routes()}
        await stack.enter_async_context(http.HttpServer(routes).listen(pages.sock))
        if agent.config.metrics:
            public = http.HttpServer(admin.public_routes(), door="metrics")
            await stack.enter_async_context(public.listen(agent.config.metrics))
        zds = stack.enter_context(closing(Unseen(agent.config.zds, socket.SOCK_SEQPACKET)))
        direct = stack.enter_context(closing(Unseen(agent.config.direct_socket)))
        listener, direct_listener = listening(zds.sock), listening(direct.sock)
        doors = [direct, zds, pages]
        if agent.cni is not None:
            doors.append(stack.enter_context(closing(Unseen(agent.cni.socket))))
            calls = agent.cni.door(enroller, intents, agent.direct).routes()
            server = http.HttpServer(calls, door="cni_socket")
            await stack.enter_async_context(server.listen(doors[-1].sock, DOOR))
        for door in doors:
            door.show()
        if agent.cni is not None:
            agent.cni.opened()
        event(log, logging.INFO, "agent.started", node=agent.config.node, admin=socket_path)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_stop_on_signal(), name="signals")
                for after_s in SETTLE_AT_S:
                    asyncio.get_running_loop().call_later(after_s, settle)
                tasks.create_task(ztunnels.run(listener), name="zds")
                tasks.create_task(enroller.run(), name="enrol")
                tasks.create_task(agent.direct.run(direct_listener), name="direct")
                tasks.create_task(intents.run(_intents_changed(agent)), name="intents")
                for name, reporting in _reports(agent, access):
                    tasks.create_task(reporting, name=name)
                if agent.runtime is not None:
                    tasks.create_task(agent.runtime.run(), name="cri")
                tasks.create_task(agent.kubelet.run(), name="kubelet")
                if agent.cni is not None:
                    tasks.create_task(agent.cni.run(), name="cni")
                tasks.create_task(_release(), name="release")
                refused = RefusedLog(agent.datapath, agent.registry)
                tasks.create_task(refused.run(), name="refused")
        except* Stopped:
            captured = len(enroller.facts.book.report())
            event(log, logging.INFO, "agent.stopped", captured_pods_stay=captured)


def _reports(agent: Agent, access: Access) -> Iterator[tuple[str, Coroutine[Any, Any, None]]]:
    """Endless work that tells the control plane what is captured, by its name."""
    config, facts, intents = agent.config, agent.enroller.facts, agent.intents
    if not config.replicas:
        reporter = CaptureReporter(config.node, access.report)
        yield "report", report_captures(agent.enroller, intents, reporter)
        return

    def tell(are_known: bool) -> None:
        facts.book.all_hear(are_known)
        facts.pulse.beat()

    def streaming() -> str:
        return reporter.replica if intents.connection.connected else ""

    where = Whereabouts(config.replicas, agent.clock, tell)
    reporter = CaptureReporter(config.node, access.report, where.said)
    others = Replicas(config.node, where, access.report_to, agent.clock, streaming=streaming)
    yield "report", report_captures(agent.enroller, intents, reporter)
    yield "replicas", others.run(facts.book.report, facts.pulse)


def _intents_changed(agent: Agent) -> Changed:
    def changed(fresh: dict[str, Intent], removed: Collection[str]) -> None:
        agent.enroller.intents_changed(fresh, removed)
        if removed and agent.runtime is not None:
            agent.runtime.look_soon()  # a Job may be done

    return changed


async def _release() -> None:
    while True:
        await asyncio.sleep(RELEASE_EVERY_S)
        release()


async def _stop_on_signal() -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()
    raise Stopped
