"""The small API server on a loopback port, in a thread of its own: the shell around `Api`.

A test makes one with `serving()`, fills it with `put`, and switches troubles: `faults`,
`restart()` (watches end, old versions are forgotten), `away()` (nobody listens), `compact()`.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from tests.support.kube.api import Answer, Api
from tests.support.kube.commands import Commands, is_command, run_command
from tests.support.kube.faults import Fault, Faults, Request
from tests.support.kube.kinds import GATEWAY_KINDS, gateway_definition, istio_definition
from tests.support.kube.listing import Watch
from tests.support.kube.status import ApiRefusal, Json
from tests.support.kube.store import Author, Change, Key, Store
from tests.support.kube.tokens import Tokens

BODY_BYTES_MAX = 3 * 1024 * 1024
START_S_MAX = 10.0
QUIET_S = 60.0  # a quiet watch gets a bookmark
LAST_BOOKMARK_S = 2.0  # before the watch's own end


class KubeServer:
    """Safe for threads: everything that touches the store holds `lock`."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.lock = threading.RLock()
        self.store = Store()
        self.tokens = Tokens(self.store)
        self.api = Api(self.store, self.tokens)
        self.faults = Faults()
        self.quiet_s, self.last_bookmark_s = QUIET_S, LAST_BOOKMARK_S
        self.commands: Commands | None = None  # runs what is asked of pods/exec
        self.port = 0
        self._context = context
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="kube", daemon=True)
        for name in ("default", "kube-system"):
            self.namespace(name)

    @property
    def url(self) -> str:
        return f"{'https' if self._context else 'http'}://127.0.0.1:{self.port}"

    # Objects as tests write them, past every check of the API.

    def put(self, value: Json) -> Json:
        """Make or replace an object, status included, as if its owner had written it."""
        with self.lock:
            resource = self.store.resource_of(value)
            metadata = value["metadata"]
            namespace = metadata.get("namespace", "default") if resource.is_namespaced else ""
            key = self.store.key(resource, namespace, metadata["name"])
            if key not in self.store.objects:
                made = self.store.create(resource, namespace, value, Author("test"))
                if "uid" in metadata:  # a test may want to know it before
                    made["metadata"]["uid"] = metadata["uid"]
                if "status" not in value:
                    return made
            where = (resource, namespace)
            if "status" in value:
                body = {"metadata": {"name": metadata["name"]}, "status": value["status"]}
                self.store.replace(*where, body, Author("test", subresource="status"))
            return self.store.replace(*where, _unversioned(value), Author("test"))

    def namespace(self, name: str, labels: dict[str, str] | None = None) -> Json:
        given = {"kubernetes.io/metadata.name": name, **(labels or {})}
        metadata = {"name": name, "labels": given}
        return self.put({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})

    def install_istio_kinds(self) -> None:
        """The two CRDs without which policies are a 404."""
        self.put(istio_definition("authorizationpolicies", "AuthorizationPolicy"))
        self.put(istio_definition("peerauthentications", "PeerAuthentication"))

    def install_gateway_kinds(self) -> None:
        """CRDs of the Gateway API, as far as the mesh reads it."""
        for plural in GATEWAY_KINDS:
            self.put(gateway_definition(plural))

    def get(self, api_version: str, kind: str, name: str, namespace: str = "") -> Json | None:
        with self.lock:
            value = {"apiVersion": api_version, "kind": kind}
            return self.store.objects.get(self._key(value, name, namespace))

    def remove(self, api_version: str, kind: str, name: str, namespace: str = "") -> None:
        with self.lock:
            value = {"apiVersion": api_version, "kind": kind}
            self.store.remove(self._key(value, name, namespace))

    def _key(self, value: Json, name: str, namespace: str) -> Key:
        return self.store.key(self.store.resource_of(value), namespace, name)

    def token(self, account: str, *, audience: str, namespace: str, pod: str) -> str:
        """A projected token of a pod; the objects have to be there."""
        with self.lock:
            spec = {"audiences": [audience], "boundObjectRef": {"kind": "Pod", "name": pod}}
            made = self.tokens.request(namespace, account, {"spec": spec})
            return str(made["status"]["token"])

    # Troubles.

    def fail(self, pattern: str, refusal: ApiRefusal | None = None, **more: Any) -> Fault:
        fault = Fault(pattern, refusal, **more)
        self.faults.active.append(fault)
        return fault

    def compact(self) -> None:
        with self.lock:
            self.store.compact()

    def drop_connections(self) -> None:
        """Every connection ends now, watches in the middle of a line."""
        self._call(self._drop)

    async def _drop(self) -> None:
        for each in list(self._connections):
            each.cancel()

    def restart(self) -> None:
        self.compact()
        self.drop_connections()

    @contextmanager
    def away(self) -> Iterator[None]:
        """Nobody listens on the port meanwhile."""
        self._call(self._close)
        try:
            yield
        finally:
            self._call(self._open)

    # The thread.

    def start(self) -> None:
        self._thread.start()
        self._call(self._open)

    def stop(self) -> None:
        self._call(self._close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(START_S_MAX)
        self._loop.close()

    def _call(self, what: Callable[[], Any]) -> None:
        asyncio.run_coroutine_threadsafe(what(), self._loop).result(START_S_MAX)

    async def _open(self) -> None:
        self._server = await asyncio.start_server(
            self._connected, "127.0.0.1", self.port, ssl=self._context
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        assert self._server is not None
        self._server.close()
        tasks = list(self._connections)
        for each in tasks:
            each.cancel()
        for each in tasks:
            with _ignored():
                await each

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            while (request := await _read(reader)) is not None:
                goes_on = await self._answer(request, reader, writer)
                if not goes_on or request.headers.get("connection") == "close":
                    await writer.drain()
                    break
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
            writer.transport.abort()
        finally:
            self._connections.discard(task)
            writer.close()

    async def _answer(
        self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """False ends the connection."""
        fault = self.faults.of(request)
        if fault is not None:
            if fault.silent and not fault.is_done:
                await reader.read(1)
                return False
            await asyncio.sleep(fault.after_s)
            if fault.refusal is not None and not fault.is_done:
                refused = fault.refusal
                body, kind = refused.encoded(), refused.content_type
                await _send(writer, Answer(refused.code, body, kind, refused.headers))
                return True
            if fault.cut and not fault.is_done and not fault.cut_at:
                return False
        if self.commands is not None and is_command(request):
            said = await asyncio.to_thread(run_command, self.commands, request)
            if isinstance(said, ApiRefusal):
                await _send(writer, Answer(said.code, said.encoded(), said.content_type))
                return True
            writer.write(said)
            await writer.drain()
            return False
        with self.lock:
            answer = self.api.handle(request)
        if isinstance(answer, Watch):
            return await self._watch(answer, reader, writer, fault.cut_at if fault else 0)
        if fault is not None and (fault.cut or fault.silent):
            writer.write(_encoded(answer)[: fault.cut_at])
            await writer.drain()
            return False
        if fault is not None and fault.refusal is not None:
            refused = fault.refusal
            answer = Answer(refused.code, refused.encoded(), refused.content_type, refused.headers)
        await _send(writer, answer)
        return True

    async def _watch(
        self,
        watch: Watch,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        cut_at: int,
    ) -> bool:
        changes: asyncio.Queue[Change] = asyncio.Queue()

        def told(change: Change) -> None:
            self._loop.call_soon_threadsafe(changes.put_nowait, change)

        try:
            with self.lock:
                lines = watch.begin(self.store)
                self.store.listeners.append(told)
        except ApiRefusal as exc:
            await _send(writer, Answer(exc.code, exc.encoded(), exc.content_type, exc.headers))
            return True
        try:
            out = _Lines(writer, cut_at)
            out.head()
            for each in lines:
                out.line(each)
            if watch.is_over:
                out.end()
                return True
            return await self._follow(watch, changes, out)
        finally:
            with self.lock:
                self.store.listeners.remove(told)

    async def _follow(self, watch: Watch, changes: asyncio.Queue[Change], out: _Lines) -> bool:
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + float(watch.params.get("timeoutSeconds") or 1800)
        last_bookmark_at = ends_at - self.last_bookmark_s
        while True:
            await out.drain()
            if out.is_cut:
                return False
            now = loop.time()
            until = min(now + self.quiet_s, ends_at)
            if watch.bookmarks and now < last_bookmark_at:
                until = min(until, last_bookmark_at)
            try:
                async with asyncio.timeout_at(until):
                    change = await changes.get()
            except TimeoutError:
                if loop.time() >= ends_at:
                    out.end()
                    await out.drain()
                    return True
                if watch.bookmarks:
                    out.line(watch.bookmark(self.store.version))
                if loop.time() >= last_bookmark_at:
                    last_bookmark_at = now  # was sent
                continue
            with self.lock:
                line = watch.line(change)
            if line is not None:
                out.line(line)


class _Lines:
    """A chunked body, a line a chunk; cut after `cut_at` bytes if that is not 0."""

    def __init__(self, writer: asyncio.StreamWriter, cut_at: int) -> None:
        self._writer = writer
        self._left = cut_at
        self._cuts = cut_at > 0
        self.is_cut = False

    def head(self) -> None:
        self._writer.write(
            b"HTTP/1.1 200 OK\r\nCache-Control: no-cache, private\r\n"
            b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        )

    def line(self, value: Json) -> None:
        data = json.dumps(value, separators=(",", ":")).encode() + b"\n"
        if self._cuts and len(data) > self._left:
            self._writer.write(b"%x\r\n%b" % (len(data), data[: self._left]))
            self.is_cut = True
            return
        self._left -= len(data)
        self._writer.write(b"%x\r\n%b\r\n" % (len(data), data))

    def end(self) -> None:
        self._writer.write(b"0\r\n\r\n")

    async def drain(self) -> None:
        await self._writer.drain()


def _unversioned(value: Json) -> Json:
    metadata = {k: each for k, each in value["metadata"].items() if k != "resourceVersion"}
    return {**value, "metadata": metadata}


@contextmanager
def _ignored() -> Iterator[None]:
    try:
        yield
    except (OSError, asyncio.CancelledError):
        pass


async def _read(reader: asyncio.StreamReader) -> Request | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *rest = head.decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ")
    pairs = (each.partition(":") for each in rest if each)
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    length = int(headers.get("content-length", "0"))
    body = await reader.readexactly(min(length, BODY_BYTES_MAX))
    url = urlsplit(target)
    pairs_of_query = parse_qsl(url.query)
    words = tuple(value for name, value in pairs_of_query if name == "command")
    return Request(method, unquote(url.path), dict(pairs_of_query), headers, body, words)


def _encoded(answer: Answer) -> bytes:
    headers = {
        "Cache-Control": "no-cache, private",
        "Content-Type": answer.content_type,
        **answer.headers,
        "Content-Length": str(len(answer.body)),
    }
    text = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    status = f"HTTP/1.1 {answer.code} {HTTPStatus(answer.code).phrase}\r\n"
    return (status + text + "\r\n").encode() + answer.body


async def _send(writer: asyncio.StreamWriter, answer: Answer) -> None:
    writer.write(_encoded(answer))
    await writer.drain()


@contextmanager
def serving(context: ssl.SSLContext | None = None) -> Iterator[KubeServer]:
    server = KubeServer(context)
    server.start()
    try:
        yield server
    finally:
        server.stop()
