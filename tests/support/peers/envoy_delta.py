"""A delta xDS server for Envoy alone, on a Unix socket: resources as bytes, by type and name."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import grpc

from control.wire import discovery_pb2 as pb
from control.wire.types import KINDS_OF_ENVOY, SCOPE_TYPE, SECRET_TYPE

SERVICES = {
    "envoy.service.discovery.v3.AggregatedDiscoveryService": "DeltaAggregatedResources",
    "envoy.service.secret.v3.SecretDiscoveryService": "DeltaSecrets",
}
KINDS = (*KINDS_OF_ENVOY, SECRET_TYPE)
WILDCARDS = frozenset((KINDS_OF_ENVOY[0], KINDS_OF_ENVOY[2], SCOPE_TYPE))
STREAMS_MAX = 64
_OVER = object()


@dataclass
class _Asked:
    """One type on one stream. `names` None: all of them."""

    names: set[str] | None
    has: dict[str, str] = field(default_factory=dict)
    owed: set[str] = field(default_factory=set)
    is_first: bool = True


class DeltaServer:
    def __init__(self, path: str) -> None:
        self.entries: dict[str, dict[str, tuple[str, bytes]]] = {each: {} for each in KINDS}
        self.nacks: list[str] = []
        self.sent: list[tuple[str, int, int, int]] = []  # type, put, removed, bytes
        self._lock = threading.Lock()
        self._streams: list[queue.SimpleQueue[Any]] = []
        self._server = grpc.server(
            ThreadPoolExecutor(STREAMS_MAX), options=[("grpc.max_receive_message_length", -1)]
        )
        for service, method in SERVICES.items():
            handler = grpc.stream_stream_rpc_method_handler(self._serve)
            self._server.add_generic_rpc_handlers(
                (grpc.method_handlers_generic_handler(service, {method: handler}),)
            )
        self._server.add_insecure_port(f"unix:{path}")
        self._server.start()

    def put(self, changes: Mapping[str, Mapping[str, bytes | None]]) -> None:
        with self._lock:
            for type_url, resources in changes.items():
                for name, data in resources.items():
                    if data is None:
                        self.entries[type_url].pop(name, None)
                    else:
                        version = blake2b(data, digest_size=8).hexdigest()
                        self.entries[type_url][name] = (version, data)
            streams = list(self._streams)
        for each in streams:
            each.put(None)

    def close(self) -> None:
        self._server.stop(None)
        for each in list(self._streams):
            each.put(_OVER)

    def _serve(self, requests: Iterator[bytes], _context: Any) -> Iterator[bytes]:
        events: queue.SimpleQueue[Any] = queue.SimpleQueue()
        with self._lock:
            self._streams.append(events)

        def read() -> None:
            try:
                for each in requests:
                    events.put(pb.DeltaDiscoveryRequest.FromString(each))
            except grpc.RpcError:
                pass
            events.put(_OVER)

        threading.Thread(target=read, daemon=True).start()
        asked: dict[str, _Asked] = {}
        try:
            while (event := events.get()) is not _OVER:
                if event is not None:
                    self._take(event, asked)
                if events.empty():
                    yield from self._news(asked)
        finally:
            with self._lock:
                self._streams.remove(events)

    def _take(self, request: pb.DeltaDiscoveryRequest, asked: dict[str, _Asked]) -> None:
        if request.error_detail.message:
            self.nacks.append(f"{request.type_url}: {request.error_detail.message}")
        mine = asked.get(request.type_url)
        names = set(request.resource_names_subscribe)
        if mine is None:
            is_wild = request.type_url in WILDCARDS and not names - {"*"}
            mine = asked[request.type_url] = _Asked(None if is_wild else set())
            mine.has = dict(request.initial_resource_versions)
        if mine.names is not None:
            mine.names |= names
            mine.owed |= names
            mine.names -= set(request.resource_names_unsubscribe)
            for each in request.resource_names_unsubscribe:
                mine.has.pop(each, None)

    def _news(self, asked: dict[str, _Asked]) -> Iterator[bytes]:
        for type_url in KINDS:
            if (mine := asked.get(type_url)) is None:
                continue
            with self._lock:
                entries = self.entries[type_url]
                names = entries.keys() if mine.names is None else mine.names
                put = [
                    each
                    for each in names
                    if each in entries and mine.has.get(each) != entries[each][0]
                ]
                gone = [each for each in {*mine.has, *mine.owed} if each not in entries]
                values = [(each, *entries[each]) for each in put]
            mine.owed.clear()
            if not values and not gone and not mine.is_first:
                continue
            mine.is_first = False
            response = pb.DeltaDiscoveryResponse(
                type_url=type_url, nonce=str(len(self.sent)), removed_resources=gone
            )
            for name, version, data in values:
                one = response.resources.add(name=name, version=version)
                one.resource.type_url, one.resource.value = type_url, data
                mine.has[name] = version
            for each in gone:
                mine.has.pop(each, None)
            encoded = response.SerializeToString()
            self.sent.append((type_url.rpartition(".")[2], len(values), len(gone), len(encoded)))
            yield encoded
