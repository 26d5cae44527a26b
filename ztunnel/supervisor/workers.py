"""Starts the worker processes, keeps each of them informed, and replaces the one that dies.

A worker gets everything over its pipe (ipc.py): settings, the mesh's state, pods with their
sockets, certificates. A new one gets all of it at once, from `WorkerSource`.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from control.kit.backoff import Backoff
from control.kit.children import kill_child
from control.kit.clock import Clock
from control.kit.errors import WireError
from control.kit.log import event
from control.model.identity import SpiffeId, parse_spiffe_id
from control.wire.direct import (
    AgentHello,
    FlowLine,
    Unknown,
    ZtunnelLine,
    encode,
    read_ztunnel_line,
)
from ztunnel.identity.csr import Issued
from ztunnel.ipc import Frame, FrameKind, IpcSocket, encode_json
from ztunnel.mesh.entries import Entry, chunks
from ztunnel.refusals import Reason
from ztunnel.supervisor.child import Forked
from ztunnel.supervisor.copies import Copy
from ztunnel.supervisor.leaving import Leaving
from ztunnel.supervisor.pods import HeldPod
from ztunnel.supervisor.question import Question, WorkerProcess
from ztunnel.supervisor.spawn import spawn, worker_argv
from ztunnel.supervisor.watch import LOOK_S, Watch

log = logging.getLogger("workers")

RESTART_INITIAL_S = 0.1
RESTART_MAX_S = 10.0
SETTLED_S = 30.0  # a worker that lived this long started well
QUERY_DEADLINE_S = 1.0  # a stuck worker must not hang a page
QUERIES_MAX = 64  # unanswered at one worker
END_GRACE_S = 1.0  # from the end of the drain to the kill


class WorkerSource(Protocol):
    """Everything that a new worker has to know."""

    def entries(self) -> Iterable[Entry]: ...

    def pods(self) -> Iterable[HeldPod]: ...

    def certificates(self) -> Iterable[Issued]: ...

    def generation(self) -> int | None:
        """Generation that offers to the kernel carry; None where the direct path is off."""


class WorkerListener(Protocol):
    """Receiver of the workers' news."""

    def pod_ready(self, worker: int, uid: str) -> None: ...

    def worker_lost(self, worker: int) -> None: ...

    def certificate_needed(self, identity: SpiffeId, *, waiting: bool) -> None: ...

    def addresses_needed(self, pod: str, names: list[str], *, spare: bool) -> None: ...

    def worker_ready(self, worker: int) -> None: ...

    def metrics_changed(self, worker: int, piece: dict[str, Any]) -> None: ...

    def direct_line(self, worker: int, line: ZtunnelLine | Unknown) -> None:
        """Pass a line to the agent; WireError: a worker may not say this."""


class Workers:
    """`count` workers. Each is a process, or is about to be one."""

    def __init__(
        self,
        count: int,
        settings: dict[str, Any],
        source: WorkerSource,
        listener: WorkerListener,
        clock: Clock,
        argv: Callable[[int], list[str]] = worker_argv,
        early: Sequence[Copy] = (),
    ) -> None:
        """`early`: workers that have been started already, by number."""
        self.count = count
        self.restarts = 0
        self._settings = settings
        self._source = source
        self._listener = listener
        self._clock = clock
        self._argv = argv
        self._early = dict(enumerate(early))
        self._live: dict[int, WorkerProcess] = {}
        self._queries = itertools.count(1)
        self._leaving = Leaving(lambda: self._live)
        self._stopping = False

    @property
    def all_ready(self) -> bool:
        return len(self._live) == self.count and all(each.ready for each in self._live.values())

    def status(self) -> list[dict[str, object]]:
        live = sorted(self._live.values(), key=lambda each: each.number)
        return [{"worker": e.number, "pid": e.process.pid, "ready": e.ready} for e in live]

    async def run(self) -> None:
        """Keep all workers running until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for number in range(self.count):
                tasks.create_task(self._keep(number), name=f"worker {number}")
            tasks.create_task(self._watch(), name="watch")

    # News for all of them

    def publish(self, entries: Iterable[Entry]) -> None:
        for payload in chunks(entries):
            self._tell(FrameKind.RESOURCES, payload)

    def publish_generation(self, generation: int) -> None:
        self._tell_json(FrameKind.GENERATION, {"generation": generation})

    def send_direct(self, worker: int, line: AgentHello | FlowLine) -> None:
        """Pass on a line of the agent. A worker that is away asks for it again once it is back."""
        live = self._live.get(worker)
        if live is not None:
            self._send_raw(live, FrameKind.DIRECT, encode(line))

    def publish_certificate(self, issued: Issued) -> None:
        for worker in list(self._live.values()):
            self._send_certificate(worker, issued)

    def publish_failure(self, identity: SpiffeId, reason: str) -> None:
        self._tell_json(FrameKind.CERTIFICATE_FAILED, {"identity": str(identity), "reason": reason})

    def publish_forgotten(self, identity: SpiffeId) -> None:
        """Behind the POD_DELETE of its last pod, so nothing asks for it in between."""
        self._tell_json(FrameKind.CERTIFICATE_FORGOTTEN, {"identity": str(identity)})

    def refuse_addresses(self, pod: str, names: list[str], reason: Reason) -> None:
        """Nobody will answer these names to the pod."""
        value = {"pod": pod, "names": names, "reason": reason.name}
        self._tell_json(FrameKind.UNANSWERED, value)

    def add_pod(self, pod: HeldPod) -> None:
        for worker in list(self._live.values()):
            self._send_pod(worker, pod)

    def delete_pod(self, uid: str) -> None:
        self._tell_json(FrameKind.POD_DELETE, {"uid": uid})

    def set_log_level(self, level: str) -> None:
        self._settings["log_level"] = level
        self._tell_json(FrameKind.LOG_LEVEL, {"level": level})

    async def leave(self, within_s: float) -> bool:
        """Have them serve on; True as soon as nothing is open."""
        if not self._leaving.has_begun:
            self._leaving.has_begun = True
            self._tell_json(FrameKind.LEAVE, {})
        return await self._leaving.idle(within_s)

    async def drain(self, deadline_s: float) -> None:
        """Let them finish, and end those that have not by the deadline. Nothing restarts."""
        self._stopping = True
        self._tell_json(FrameKind.DRAIN, {"deadline_s": deadline_s})
        try:
            async with asyncio.timeout(deadline_s + END_GRACE_S):
                for worker in list(self._live.values()):
                    await worker.gone.wait()
        except TimeoutError:
            event(log, logging.WARNING, "worker.drain_cut", deadline_s=deadline_s)

    async def kill(self) -> None:
        """End all of them at once; they are gone when this returns."""
        self._stopping = True
        for worker in list(self._live.values()):
            self._end(worker)
        for worker in list(self._live.values()):
            await worker.gone.wait()

    async def query(self, what: str) -> dict[int, dict[str, Any]]:
        """Ask every ready worker; the answers by worker, of those that answer in time."""
        asked: dict[int, asyncio.Future[dict[str, Any]]] = {}
        loop = asyncio.get_running_loop()
        for worker in list(self._live.values()):
            if not worker.ready or len(worker.questions) >= QUERIES_MAX:
                continue
            number = next(self._queries)
            answer = asked[worker.number] = loop.create_future()
            worker.questions[number] = Question(what, answer)
            self._send(worker, FrameKind.QUERY, {"id": number, "what": what})
        if asked:
            await asyncio.wait(asked.values(), timeout=QUERY_DEADLINE_S)
        found: dict[int, dict[str, Any]] = {}
        for who, answer in asked.items():
            if answer.done() and not answer.cancelled():
                found[who] = answer.result()
            else:
                answer.cancel()
                event(log, logging.WARNING, "worker.slow", worker=who, query=what)
        return found

    async def _watch(self) -> None:
        """End the worker that lives and does nothing: its clients would hang."""
        watch = Watch(self._clock)
        while not self._stopping:
            await asyncio.sleep(LOOK_S)
            live = {each.process.pid: each for each in self._live.values() if each.ready}
            for pid in watch.turn({pid: each.heard for pid, each in live.items()}):
                event(log, logging.ERROR, "worker.stuck", worker=live[pid].number, pid=pid)
                self._end(live[pid])

    # One slot

    async def _keep(self, number: int) -> None:
        backoff = Backoff(RESTART_INITIAL_S, RESTART_MAX_S)
        while not self._stopping:
            started_s = self._clock.monotonic_s()
            try:
                await self._run_one(number)
            except OSError as exc:
                event(log, logging.ERROR, "worker.not_started", worker=number, error=exc)
            if self._clock.monotonic_s() - started_s > SETTLED_S:
                backoff.reset()
            if not self._stopping:
                self.restarts += 1
                await asyncio.sleep(backoff.next_s())

    async def _run_one(self, number: int) -> None:
        early = self._early.pop(number, None)
        process, pipe = spawn(self._argv) if early is None else (Forked(early.pid), early.pipe)
        worker = WorkerProcess(number, process, IpcSocket(pipe))
        descriptor, loop = worker.pipe.fileno(), asyncio.get_running_loop()
        loop.add_reader(descriptor, self._readable, worker)
        event(log, logging.INFO, "worker.started", worker=number, pid=process.pid)
        try:
            self._live[number] = worker
            self._bring_up(worker)
            code = await process.wait()
            level = logging.INFO if self._stopping else logging.ERROR
            name = "worker.ended" if self._stopping else "worker.died"
            event(log, level, name, worker=number, pid=process.pid, code=code)
        finally:
            self._end(worker)
            self._live.pop(number, None)
            loop.remove_reader(descriptor)
            loop.remove_writer(descriptor)
            worker.pipe.close()
            worker.gone.set()
            for answer in [question.answer for question in worker.questions.values()]:
                answer.cancel()
            self._leaving.lost(number)
            self._listener.worker_lost(number)

    def _bring_up(self, worker: WorkerProcess) -> None:
        self._send(worker, FrameKind.CONFIG, {**self._settings, "worker": worker.number})
        for payload in chunks(self._source.entries()):
            self._send_raw(worker, FrameKind.RESOURCES, payload)
        generation = self._source.generation()
        if generation is not None:
            self._send(worker, FrameKind.GENERATION, {"generation": generation})
        for issued in self._source.certificates():
            self._send_certificate(worker, issued)
        for pod in self._source.pods():
            self._send_pod(worker, pod)
        if self._leaving.has_begun:
            self._send(worker, FrameKind.LEAVE, {})

    def _send_pod(self, worker: WorkerProcess, pod: HeldPod) -> None:
        names = ("uid", "name", "namespace", "service_account")
        claim = {name: getattr(pod, name) for name in names}
        listeners = pod.listeners[worker.number].descriptors()
        self._send(worker, FrameKind.POD_ADD, claim, (pod.netns, *listeners))

    def _send_certificate(self, worker: WorkerProcess, issued: Issued) -> None:
        certificate = {
            "identity": str(issued.identity),
            "key_pem": issued.key_pem,
            "chain_pem": list(issued.chain_pem),
            "roots_pem": issued.roots_pem,
        }
        self._send(worker, FrameKind.CERTIFICATE, certificate)

    # Bytes

    def _tell_json(self, kind: FrameKind, value: dict[str, Any]) -> None:
        for worker in list(self._live.values()):
            self._send(worker, kind, value)

    def _tell(self, kind: FrameKind, payload: bytes) -> None:
        for worker in list(self._live.values()):
            self._send_raw(worker, kind, payload)

    def _send(
        self,
        worker: WorkerProcess,
        kind: FrameKind,
        value: dict[str, Any],
        descriptors: tuple[int, ...] = (),
    ) -> None:
        self._send_raw(worker, kind, encode_json(value), descriptors)

    def _send_raw(
        self,
        worker: WorkerProcess,
        kind: FrameKind,
        payload: bytes,
        descriptors: tuple[int, ...] = (),
    ) -> None:
        """Send a frame. A worker that cannot take it is of no use: it is ended, and a new one gets
        everything."""
        try:
            worker.pipe.send(kind, payload, descriptors)
        except (OSError, WireError) as exc:
            event(log, logging.ERROR, "worker.unreachable", worker=worker.number, error=exc)
            self._end(worker)
            return
        if worker.pipe.wants_write:
            loop = asyncio.get_running_loop()
            loop.add_writer(worker.pipe.fileno(), self._writable, worker)

    def _writable(self, worker: WorkerProcess) -> None:
        try:
            worker.pipe.flush()
        except OSError:
            self._end(worker)
        if not worker.pipe.wants_write:
            asyncio.get_running_loop().remove_writer(worker.pipe.fileno())

    def _readable(self, worker: WorkerProcess) -> None:
        try:
            frames = worker.pipe.receive()
            if frames is None:
                asyncio.get_running_loop().remove_reader(worker.pipe.fileno())
                self._end(worker)
                return
            worker.heard += 1
            for frame in frames:
                self._take(worker, frame)
        except (OSError, WireError, KeyError, ValueError) as exc:
            event(log, logging.ERROR, "worker.broken", worker=worker.number, error=exc)
            self._end(worker)

    def _take(self, worker: WorkerProcess, frame: Frame) -> None:
        frame.close()
        if frame.kind is FrameKind.DIRECT:
            self._listener.direct_line(worker.number, read_ztunnel_line(frame.payload))
            return
        value = frame.json()
        match frame.kind:
            case FrameKind.READY:
                worker.ready = True
                event(log, logging.INFO, "worker.ready", worker=worker.number)
                self._listener.worker_ready(worker.number)
            case FrameKind.POD_READY:
                self._listener.pod_ready(worker.number, str(value["uid"]))
            case FrameKind.NEED_CERTIFICATE:
                identity = parse_spiffe_id(str(value["identity"]))
                self._listener.certificate_needed(identity, waiting=bool(value.get("waiting")))
            case FrameKind.NEED_ADDRESSES:
                names = [str(each) for each in value["names"]]
                self._listener.addresses_needed(
                    str(value["pod"]), names, spare=bool(value["spare"])
                )
            case FrameKind.ANSWER:
                self._take_answer(worker, int(value["id"]), value)
            case FrameKind.IDLE:
                self._leaving.heard(worker.number, idle=bool(value["idle"]))
            case FrameKind.BEAT:
                pass
            case FrameKind.DRAINED:
                worker.drained = True
                worker.pipe.finish()
            case _:
                raise WireError(f"{frame.kind.name} is not for the supervisor")

    def _take_answer(self, worker: WorkerProcess, number: int, piece: dict[str, Any]) -> None:
        question = worker.questions.get(number)
        if question is None:
            return
        if question.what == "metrics":
            # Counts of what has changed: they are taken also when nobody waits any more.
            self._listener.metrics_changed(worker.number, piece)
        if question.take(piece):
            del worker.questions[number]

    def _end(self, worker: WorkerProcess) -> None:
        kill_child(worker.process)
