"""A small client of the API server: typed answers, typed errors, bounded waits and sizes.

It knows paths and bytes, no kind. Answers are decoded into the type that the caller names: a
msgspec struct with the fields it reads, or plain values. Nothing is tried again here but a call
that was refused for credentials which are renewed by then.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from control.kit.lazy import lazy
from control.kit.version import version
from control.kube.access import ClusterAccess
from control.kube.errors import TooLargeAnswer, Unreachable, UnreadableAnswer, error_of
from control.kube.nesting import decoded
from control.kube.trust import Contexts

if TYPE_CHECKING:
    import aiohttp
    import yarl
else:
    aiohttp, yarl = lazy("aiohttp"), lazy("yarl")

CONNECT_S = 10.0
CALL_S = 60.0  # the API server itself ends a call after 60 s
BODY_BYTES_MAX = 128 * 1024 * 1024  # a page of 500 objects with 256 KiB each
ERROR_BYTES_MAX = 64 * 1024
HEARTBEAT_S = 15.0  # a websocket whose other end is gone is noticed by then
CONNECTIONS_MAX = 64  # each watch has one
HEAD_S = 30.0  # until the head of an answer without end

JSON: Final = "application/json"
MERGE_PATCH: Final = "application/merge-patch+json"
APPLY_PATCH: Final = "application/apply-patch+yaml"  # JSON is YAML

Parameters = Mapping[str, str]
T = TypeVar("T")


class KubeClient:
    """Use as an async context manager; calls may run side by side."""

    def __init__(self, access: ClusterAccess, body_bytes_max: int = BODY_BYTES_MAX) -> None:
        self.access = access
        self._body_bytes_max = body_bytes_max
        self._contexts = Contexts(access.trust)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> KubeClient:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=CONNECTIONS_MAX),
            # Bodies as they are: unpacking costs more than a local network.
            headers={"User-Agent": f"tulle/{version()}", "Accept-Encoding": "identity"},
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def get(
        self, path: str, into: type[T], parameters: Parameters | None = None, *, accept: str = JSON
    ) -> T:
        """One object, or one page of a list. Raises ApiError, Unreachable, AccessError."""
        return await self._call("GET", path, into, parameters=parameters, accept=accept)

    async def create(
        self, path: str, body: Any, into: type[T], parameters: Parameters | None = None
    ) -> T:
        return await self._call("POST", path, into, body=body, parameters=parameters)

    async def put(
        self, path: str, body: Any, into: type[T], parameters: Parameters | None = None
    ) -> T:
        return await self._call("PUT", path, into, body=body, parameters=parameters)

    async def apply(
        self,
        path: str,
        body: Any,
        into: type[T],
        *,
        manager: str,
        force: bool = False,
        dry_run: bool = False,
    ) -> T:
        """Server-side apply by this field manager; a conflict with another one is an ApiError."""
        parameters = {"fieldManager": manager, "force": "true" if force else "false"}
        if dry_run:
            parameters["dryRun"] = "All"
        return await self._call(
            "PATCH", path, into, body=body, content=APPLY_PATCH, parameters=parameters
        )

    async def merge(
        self, path: str, body: Any, into: type[T], parameters: Parameters | None = None
    ) -> T:
        """Merge patch. `metadata.uid` or `metadata.resourceVersion` in it is a precondition."""
        return await self._call(
            "PATCH", path, into, body=body, content=MERGE_PATCH, parameters=parameters
        )

    async def delete(
        self,
        path: str,
        *,
        uid: str = "",
        version: str = "",
        propagation: str = "",
        grace_s: int | None = None,
    ) -> None:
        """Delete an object; only the one with this uid and version where they are given. `grace_s`:
        a pod's time to end, also of one that has begun to and has more."""
        options: dict[str, Any] = {"kind": "DeleteOptions", "apiVersion": "v1"}
        known = {"uid": uid, "resourceVersion": version}
        if preconditions := {name: text for name, text in known.items() if text}:
            options["preconditions"] = preconditions
        if propagation:
            options["propagationPolicy"] = propagation
        if grace_s is not None:
            options["gracePeriodSeconds"] = grace_s
        await self._call("DELETE", path, msgspec.Raw, body=options)

    async def text(self, path: str, parameters: Parameters | None = None) -> str:
        """A page that is not an object: /readyz, a pod's pages by the proxy."""
        async with self._request("GET", path, parameters, accept="*/*") as response:
            return (await self._body(response, path)).decode(errors="replace")

    @asynccontextmanager
    async def watch(
        self, path: str, parameters: Parameters, silence_s: Callable[[], float]
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """The chunks of an answer without end. `silence_s` is asked before each for the longest
        silence; after that this raises Unreachable."""
        head_s = min(HEAD_S, silence_s())
        async with self._request("GET", path, parameters, head_s=head_s) as response:
            yield _chunks(response, path, silence_s)

    @asynccontextmanager
    async def websocket(
        self, path: str, parameters: Iterable[tuple[str, str]], protocols: Sequence[str]
    ) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        """A conversation in frames, of one of these protocols; pings keep it alive."""
        session, trust = self._session, self.access.trust
        assert session is not None, "the client is used outside of its `async with`"
        where = f"GET {path}"
        is_https = self.access.server.startswith("https://")
        proof = await self.access.credentials.proof()
        headers = {"Authorization": proof.authorization} if proof.authorization else {}
        try:
            async with asyncio.timeout(CALL_S):
                socket = await session.ws_connect(
                    yarl.URL(self.access.server + path, encoded=True).extend_query(
                        list(parameters)
                    ),
                    protocols=protocols,
                    headers=headers,
                    heartbeat=HEARTBEAT_S,
                    max_msg_size=self._body_bytes_max,
                    ssl=self._contexts.get(proof.own) if is_https else True,
                    server_hostname=trust.server_name if is_https else None,
                    proxy=self.access.proxy,
                )
        except aiohttp.WSServerHandshakeError as exc:  # its body is not kept
            raise error_of(exc.status, exc.headers or {}, exc.message.encode(), where) from exc
        except (aiohttp.ClientError, ssl.SSLError, TimeoutError, OSError) as exc:
            raise Unreachable(f"{where}: {self.access.server}: {_words(exc)}") from exc
        try:
            yield socket
        finally:
            await socket.close()

    async def _call(
        self,
        method: str,
        path: str,
        into: type[T],
        *,
        body: Any = None,
        content: str = JSON,
        accept: str = JSON,
        parameters: Parameters | None = None,
    ) -> T:
        data = None if body is None else msgspec.json.encode(body)
        async with self._request(
            method, path, parameters, data=data, content=content, accept=accept
        ) as response:
            answer = await self._body(response, path)
        try:
            return decoded(lambda data: msgspec.json.decode(data, type=into), answer)
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            raise UnreadableAnswer(f"{method} {path}: {exc}") from exc

    @asynccontextmanager
    async def _request(
        self,
        method: str,
        path: str,
        parameters: Parameters | None,
        *,
        data: bytes | None = None,
        content: str = JSON,
        accept: str = JSON,
        head_s: float | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """An answer that is a success, until the block is left. `head_s` is for one without end:
        the time until it begins."""
        where = f"{method} {path}"
        headers = {"Accept": accept}
        if data is not None:
            headers["Content-Type"] = content
        try:
            total_s = CALL_S if head_s is None else None
            limits = aiohttp.ClientTimeout(total=total_s, sock_connect=CONNECT_S)
            async with asyncio.timeout(head_s):
                response = await self._send(method, path, parameters, data, headers, limits)
        except (aiohttp.ClientError, ssl.SSLError, TimeoutError, OSError) as exc:
            raise Unreachable(f"{where}: {self.access.server}: {_words(exc)}") from exc
        try:
            if response.status >= 300:
                said = await _body(response, path, ERROR_BYTES_MAX)
                raise error_of(response.status, response.headers, said, where)
            yield response
        finally:
            response.close()

    async def _body(self, response: aiohttp.ClientResponse, path: str) -> bytes:
        return await _body(response, path, self._body_bytes_max)

    async def _send(
        self,
        method: str,
        path: str,
        parameters: Parameters | None,
        data: bytes | None,
        headers: dict[str, str],
        limits: aiohttp.ClientTimeout,
    ) -> aiohttp.ClientResponse:
        """The head of an answer. Once more with new credentials if these were not accepted."""
        session, trust = self._session, self.access.trust
        assert session is not None, "the client is used outside of its `async with`"
        is_https = self.access.server.startswith("https://")
        # Quoted already: a token of a list must arrive as it is.
        url = yarl.URL(self.access.server + path, encoded=True).extend_query(dict(parameters or {}))
        for attempt in (1, 2):
            proof = await self.access.credentials.proof()
            if proof.authorization:
                headers["Authorization"] = proof.authorization
            response = await session.request(
                method,
                url,
                data=data,
                headers=headers,
                ssl=self._contexts.get(proof.own) if is_https else True,
                server_hostname=trust.server_name if is_https else None,
                proxy=self.access.proxy,
                allow_redirects=False,
                timeout=limits,
            )
            if response.status != 401 or attempt == 2:
                return response
            self.access.credentials.refused()
            if await self.access.credentials.proof() == proof:
                return response
            response.close()
        raise AssertionError


async def _body(response: aiohttp.ClientResponse, path: str, bytes_max: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for chunk in _chunks(response, path):
        size += len(chunk)
        if size > bytes_max:
            raise TooLargeAnswer(f"{path}: an answer over {bytes_max} bytes")
        parts.append(chunk)
    return b"".join(parts)


async def _chunks(
    response: aiohttp.ClientResponse, path: str, silence_s: Callable[[], float] | None = None
) -> AsyncIterator[bytes]:
    longest_s: float | None = None
    try:
        while not response.content.at_eof():
            longest_s = None if silence_s is None else silence_s()
            async with asyncio.timeout(longest_s):
                chunk = await response.content.readany()
            if chunk:
                yield chunk
    except (aiohttp.ClientError, TimeoutError, OSError) as exc:
        is_silent = isinstance(exc, TimeoutError) and longest_s is not None
        why = f"silent for {longest_s:.0f} s" if is_silent else _words(exc)
        raise Unreachable(f"GET {path}: {why}") from exc


def _words(exc: BaseException) -> str:
    if isinstance(exc, TimeoutError) and not str(exc):
        return "no answer in time"
    if isinstance(exc, aiohttp.ClientPayloadError | aiohttp.ServerDisconnectedError):
        return "the answer broke off"
    if isinstance(exc, aiohttp.ClientConnectorError):
        exc = exc.os_error  # a certificate that was not accepted, too
    return " ".join(str(exc).split()) or type(exc).__name__
