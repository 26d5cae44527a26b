"""A container runtime in memory that serves CRI v1 on a unix socket, as a containerd 2.1 did.

Recorded: a READY sandbox has no `state` on the wire (it is 0), one of the host's network has no
address and no path, an unknown id is NOT_FOUND, and a new reader of events gets those of the last
minutes at once. `tests/unit/agent/cri/test_recordings.py` compares.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from agent.cri import runtime_pb2 as pb


@dataclass(frozen=True)
class FakeSandbox:
    uid: str
    name: str
    namespace: str = "shop"
    id: str = ""
    is_ready: bool = True
    netns: str = ""
    pid: int = 0
    ips: tuple[str, ...] = ()
    host_network: bool = False
    created_at: int = 0
    containers: tuple[str, ...] = ("CONTAINER_RUNNING",)

    def metadata(self) -> pb.PodSandboxMetadata:
        return pb.PodSandboxMetadata(name=self.name, uid=self.uid, namespace=self.namespace)

    def state(self) -> Any:
        return pb.SANDBOX_READY if self.is_ready else pb.SANDBOX_NOTREADY

    def status(self) -> pb.PodSandboxStatus:
        status = pb.PodSandboxStatus(
            id=self.id, metadata=self.metadata(), state=self.state(), created_at=self.created_at
        )
        status.network.SetInParent()
        if self.ips:
            status.network.ip = self.ips[0]
            for ip in self.ips[1:]:
                status.network.additional_ips.add(ip=ip)
        options = status.linux.namespaces.options
        options.network = pb.NODE if self.host_network else pb.POD
        return status

    def info(self) -> dict[str, Any]:
        network = {"type": "network", "path": self.netns} if self.netns else {"type": "network"}
        namespaces = [{"type": "pid"}, *([] if self.host_network else [network])]
        return {
            "pid": self.pid,
            "netNamespaceClosed": False,
            "config": {"metadata": {"name": self.name, "uid": self.uid}},
            "runtimeSpec": {"linux": {"namespaces": namespaces}},
        }


@dataclass
class FakeRuntime:
    """The things a runtime has. Change it as a test goes on; `tell` sends events."""

    sandboxes: dict[str, FakeSandbox] = field(default_factory=dict)
    has_events: bool = True
    version_text: str = "2.1.9+unknown"
    fails: bool = False  # every call is UNAVAILABLE, as while containerd restarts
    info: str | None = None  # in place of a sandbox's own
    config: str | None = None  # containerd tells it, if asked for more
    calls: list[str] = field(default_factory=list)
    events: list[pb.ContainerEventResponse] = field(default_factory=list)
    _readers: list[asyncio.Queue[pb.ContainerEventResponse | None]] = field(default_factory=list)
    _numbers: Any = field(default_factory=lambda: itertools.count(1))

    def put(self, sandbox: FakeSandbox) -> FakeSandbox:
        number = next(self._numbers)
        made = replace(
            sandbox, id=sandbox.id or f"{number:064x}", created_at=sandbox.created_at or number
        )
        self.sandboxes[made.id] = made
        return made

    def run(self, sandbox: FakeSandbox) -> FakeSandbox:
        """Put it and tell."""
        made = self.put(sandbox)
        self.tell(made, pb.CONTAINER_CREATED_EVENT)
        self.tell(made, pb.CONTAINER_STARTED_EVENT)
        return made

    def stop(self, sandbox: FakeSandbox) -> None:
        stopped = replace(sandbox, is_ready=False, containers=("CONTAINER_EXITED",))
        self.sandboxes[sandbox.id] = stopped
        self.tell(stopped, pb.CONTAINER_STOPPED_EVENT)

    def remove(self, sandbox: FakeSandbox) -> None:
        self.sandboxes.pop(sandbox.id, None)
        self.tell(replace(sandbox, is_ready=False), pb.CONTAINER_DELETED_EVENT)

    def tell(self, sandbox: FakeSandbox, kind: Any) -> None:
        event = pb.ContainerEventResponse(
            container_id=sandbox.id,
            container_event_type=kind,
            created_at=sandbox.created_at,
            pod_sandbox_status=sandbox.status(),
        )
        self.events.append(event)
        for reader in self._readers:
            reader.put_nowait(event)

    def cut(self) -> None:
        """End every stream of events."""
        for reader in self._readers:
            reader.put_nowait(None)

    # The service

    async def status(
        self, request: pb.StatusRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.StatusResponse:
        await self._called("Status", context)
        answer = pb.StatusResponse()
        if request.verbose and self.config is not None:
            answer.info["config"] = self.config
        return answer

    async def version(self, request: Any, context: Any) -> Any:
        await self._called("Version", context)
        return pb.VersionResponse(
            version="0.1.0", runtime_name="containerd", runtime_version=self.version_text
        )

    async def list_sandboxes(self, request: Any, context: Any) -> Any:
        await self._called("ListPodSandbox", context)
        items = [
            pb.PodSandbox(
                id=each.id,
                metadata=each.metadata(),
                state=each.state(),
                created_at=each.created_at,
            )
            for each in self.sandboxes.values()
        ]
        return pb.ListPodSandboxResponse(items=items)

    async def sandbox_status(self, request: Any, context: Any) -> Any:
        await self._called("PodSandboxStatus", context)
        found = self.sandboxes.get(request.pod_sandbox_id)
        if found is None:
            details = "an error occurred when try to find sandbox: not found"
            await context.abort(grpc.StatusCode.NOT_FOUND, details)
            raise AssertionError("abort returned")
        response = pb.PodSandboxStatusResponse(status=found.status())
        if request.verbose:
            response.info["info"] = json.dumps(found.info()) if self.info is None else self.info
        return response

    async def list_containers(self, request: Any, context: Any) -> Any:
        await self._called("ListContainers", context)
        response = pb.ListContainersResponse()
        for sandbox in self.sandboxes.values():
            for number, state in enumerate(sandbox.containers):
                made = response.containers.add(id=f"{sandbox.id}-{number}")
                made.pod_sandbox_id = sandbox.id
                made.state = pb.ContainerState.Value(state)
        return response

    async def container_events(self, request: Any, context: Any) -> AsyncIterator[Any]:
        await self._called("GetContainerEvents", context)
        if not self.has_events:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "unknown method")
        queue: asyncio.Queue[pb.ContainerEventResponse | None] = asyncio.Queue()
        self._readers.append(queue)
        try:
            for event in list(self.events):
                yield event
            while (event_or_end := await queue.get()) is not None:
                yield event_or_end
        finally:
            self._readers.remove(queue)

    async def _called(self, method: str, context: Any) -> None:
        self.calls.append(method)
        if self.fails:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "server is not initialized yet")

    def _handlers(self) -> Any:
        methods = {
            "Version": (self.version, pb.VersionRequest),
            "Status": (self.status, pb.StatusRequest),
            "ListPodSandbox": (self.list_sandboxes, pb.ListPodSandboxRequest),
            "PodSandboxStatus": (self.sandbox_status, pb.PodSandboxStatusRequest),
            "ListContainers": (self.list_containers, pb.ListContainersRequest),
        }
        found: dict[str, Any] = {
            name: grpc.unary_unary_rpc_method_handler(
                serve,
                request_deserializer=kind.FromString,
                response_serializer=lambda message: message.SerializeToString(),
            )
            for name, (serve, kind) in methods.items()
        }
        found["GetContainerEvents"] = grpc.unary_stream_rpc_method_handler(
            self.container_events,
            request_deserializer=pb.GetEventsRequest.FromString,
            response_serializer=lambda message: message.SerializeToString(),
        )
        return grpc.method_handlers_generic_handler("runtime.v1.RuntimeService", found)

    @asynccontextmanager
    async def serving(self, socket: Path) -> AsyncIterator[Path]:
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((self._handlers(),))
        server.add_insecure_port(f"unix:{socket}")
        await server.start()
        try:
            yield socket
        finally:
            self.cut()
            await server.stop(grace=None)
