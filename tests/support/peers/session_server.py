"""Our sessions for Envoy alone, on a Unix socket: what they are asked and what they say is kept."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from control.server.xds.racks import Rack
from control.server.xds.resource import make_entry
from control.server.xds.session import DeltaSession
from control.server.xds.waypoint_view import WaypointView
from control.wire import discovery_pb2 as pb
from control.wire.types import DELTA_METHOD

STREAMS_MAX = 8
_OVER = object()


class SessionServer:
    """`said`, in order: "> type" with names asked for and given back, "+ type" or "! type" for an
    answer, and "< type" with names added and removed."""

    def __init__(self, path: str) -> None:
        self.said: list[tuple[str, list[str], list[str]]] = []
        self.nacks: list[str] = []
        self._rack, self._revision = Rack(), 0
        self._lock = threading.Lock()
        self._streams: dict[queue.SimpleQueue[Any], DeltaSession] = {}
        self._server = grpc.server(
            ThreadPoolExecutor(STREAMS_MAX), options=[("grpc.max_receive_message_length", -1)]
        )
        service, _, method = DELTA_METHOD[1:].partition("/")
        handler = grpc.stream_stream_rpc_method_handler(self._serve)
        table = grpc.method_handlers_generic_handler(service, {method: handler})
        self._server.add_generic_rpc_handlers((table,))
        self._server.add_insecure_port(f"unix:{path}")
        self._server.start()

    def put(self, changes: Mapping[str, Mapping[str, bytes | None]]) -> None:
        with self._lock:
            self._revision += 1
            for url, resources in changes.items():
                shelf = self._rack.shelves[url]
                for name, data in resources.items():
                    if data is not None:
                        shelf.put(make_entry(url, name, data), self._revision)
                    elif name in shelf.entries:
                        shelf.remove(name, self._revision)
            change = {url: frozenset(each) for url, each in changes.items() if each}
            for events, session in self._streams.items():
                session.changed(change)
                events.put(None)

    def settled(self) -> list[tuple[str, list[str], list[str]]]:
        """All that was said since the last time; nothing, while a response is not acknowledged."""
        with self._lock:
            kinds = [each[0] for each in self.said]
            told = sum(each.startswith("<") for each in kinds)
            if told == 0 or told != sum(each[0] in "+!" for each in kinds):
                return []
            said, self.said = self.said, []
            return said

    def lose(self) -> None:
        """End every stream; Envoy comes back."""
        with self._lock:
            for each in self._streams:
                each.put(_OVER)

    def close(self) -> None:
        self._server.stop(None)
        self.lose()

    def _serve(self, requests: Iterator[bytes], _context: Any) -> Iterator[bytes]:
        events: queue.SimpleQueue[Any] = queue.SimpleQueue()
        with self._lock:
            session = self._streams[events] = DeltaSession(WaypointView(self._rack))

        def read() -> None:
            try:
                for each in requests:
                    events.put(pb.DeltaDiscoveryRequest.FromString(each))
            except grpc.RpcError:
                pass
            events.put(_OVER)

        threading.Thread(target=read, daemon=True).start()
        try:
            while (event := events.get()) is not _OVER:
                yield from self._answers(session, event)
        finally:
            with self._lock:
                del self._streams[events]

    def _answers(
        self, session: DeltaSession, request: pb.DeltaDiscoveryRequest | None
    ) -> Iterator[bytes]:
        with self._lock:
            if request is not None:
                self._hear(session, request)
            answers = []
            while (response := session.take()) is not None:
                message = pb.DeltaDiscoveryResponse.FromString(response.data)
                self.said.append(
                    (
                        "< " + message.type_url.rpartition(".")[2],
                        [each.name for each in message.resources],
                        list(message.removed_resources),
                    )
                )
                answers.append(response.data)
        yield from answers

    def _hear(self, session: DeltaSession, request: pb.DeltaDiscoveryRequest) -> None:
        kind = request.type_url.rpartition(".")[2]
        word = "!" if request.error_detail.message else "+" if request.response_nonce else ">"
        asked = list(request.resource_names_subscribe)
        self.said.append((f"{word} {kind}", asked, list(request.resource_names_unsubscribe)))
        if request.error_detail.message:
            self.nacks.append(f"{kind}: {request.error_detail.message}")
        session.receive(request)
