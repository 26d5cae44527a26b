"""The container runtime over its unix socket (CRI v1): asks, and never changes anything."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import ClassVar, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message

from agent.cri import runtime_pb2 as pb
from agent.cri.sandboxes import Sandbox, SandboxNetwork, living, parse_list, parse_status
from control.kit.errors import MeshError

# Runtimes of a distribution first: on a k3s node Docker's containerd may answer as well.
SOCKETS = tuple(
    map(
        Path,
        (
            "/run/k3s/containerd/containerd.sock",  # RKE2's too
            "/run/k0s/containerd.sock",
            "/var/snap/microk8s/common/run/containerd.sock",
            "/run/crio/crio.sock",
            "/run/cri-dockerd.sock",
            "/run/containerd/containerd.sock",
        ),
    )
)
PROBE_S = 2.0  # a runtime that starts is asked again
ANSWER_S = 10.0  # a list of hundreds under load; the kubelet gives it two minutes
# The kubelet's own limit: annotations come along, of which a pod may have 256 KiB.
ANSWER_BYTES_MAX = 16 * 1024 * 1024
_ONE_READER = re.compile(r"containerd v?1\.")  # later ones tell all, and the last minutes again
_SERVICE = "/runtime.v1.RuntimeService/"

_Answer = TypeVar("_Answer", bound=Message)


class RuntimeAway(MeshError):
    """No container runtime answers, or its answer cannot be used."""

    reason: ClassVar[str] = "runtime_away"


class NoEvents(MeshError):
    """A runtime that has no stream of events, as CRI-O without a setting."""

    reason: ClassVar[str] = "runtime_no_events"


class Runtime:
    """One connection to a runtime; every call may raise RuntimeAway."""

    def __init__(self, socket: Path, channel: grpc.aio.Channel) -> None:
        self.socket = socket
        self.name = ""  # and version, once `greet` was answered
        self._channel = channel

    async def greet(self) -> None:
        answer = await self._ask("Version", pb.VersionRequest(), pb.VersionResponse, PROBE_S)
        self.name = f"{answer.runtime_name} {answer.runtime_version}".strip()

    async def settings(self) -> str:
        """Its own configuration, as JSON text; empty where it does not tell."""
        request = pb.StatusRequest(verbose=True)
        answer = await self._ask("Status", request, pb.StatusResponse, PROBE_S)
        return str(answer.info.get("config", ""))

    async def sandboxes(self) -> list[Sandbox]:
        request = pb.ListPodSandboxRequest()
        return parse_list(await self._ask("ListPodSandbox", request, pb.ListPodSandboxResponse))

    async def place(self, sandbox_id: str) -> SandboxNetwork | None:
        """A sandbox's network; None: there is no such sandbox any more."""
        request = pb.PodSandboxStatusRequest(pod_sandbox_id=sandbox_id, verbose=True)
        try:
            answer = await self._call("PodSandboxStatus", request, pb.PodSandboxStatusResponse)
        except grpc.aio.AioRpcError as exc:
            if exc.code() is grpc.StatusCode.NOT_FOUND:
                return None
            raise _away(self.socket, exc) from exc
        return parse_status(answer)

    async def living(self) -> tuple[set[str], set[str]]:
        """Sandboxes with a living container, and those with any container."""
        request = pb.ListContainersRequest()
        return living(await self._ask("ListContainers", request, pb.ListContainersResponse))

    async def events(self) -> AsyncIterator[None]:
        """One item for each event of a container. They may be minutes old: ask, do not believe.

        NoEvents: this runtime does not tell, or would not tell a kubelet then.
        """
        if _ONE_READER.match(self.name):
            raise NoEvents(f"{self.name} gives each event to one reader, which a kubelet may be")
        call = self._channel.unary_stream(
            _SERVICE + "GetContainerEvents",
            request_serializer=pb.GetEventsRequest.SerializeToString,
            response_deserializer=bytes,
        )(pb.GetEventsRequest())
        try:
            async for _ in call:
                yield None
        except grpc.aio.AioRpcError as exc:
            if exc.code() is grpc.StatusCode.UNIMPLEMENTED:
                raise NoEvents(f"{self.socket}: {exc.details()}") from exc
            raise _away(self.socket, exc) from exc
        finally:
            call.cancel()

    async def _ask(
        self, method: str, request: Message, kind: type[_Answer], within_s: float = ANSWER_S
    ) -> _Answer:
        try:
            return await self._call(method, request, kind, within_s)
        except grpc.aio.AioRpcError as exc:
            raise _away(self.socket, exc) from exc

    async def _call(
        self, method: str, request: Message, kind: type[_Answer], within_s: float = ANSWER_S
    ) -> _Answer:
        parse: Callable[[bytes], _Answer] = kind.FromString
        call = self._channel.unary_unary(
            _SERVICE + method,
            request_serializer=type(request).SerializeToString,
            response_deserializer=parse,
        )
        answer: _Answer = await call(request, timeout=within_s)
        return answer


def _away(socket: Path, error: grpc.aio.AioRpcError) -> RuntimeAway:
    return RuntimeAway(f"{socket}: {error.code().name.lower()}: {error.details()}")


@asynccontextmanager
async def connected(candidates: Sequence[Path] = SOCKETS) -> AsyncIterator[Runtime]:
    """The first runtime of these sockets that answers; RuntimeAway if none does."""
    errors = []
    for socket in candidates:
        if not socket.exists():
            continue
        async with _channel(socket) as channel:
            runtime = Runtime(socket, channel)
            try:
                await runtime.greet()
            except RuntimeAway as exc:
                errors.append(str(exc))
                continue
            yield runtime
            return
    tried = "; ".join(errors) or f"no socket at {', '.join(map(str, candidates))}"
    raise RuntimeAway(tried)


def _channel(socket: Path) -> grpc.aio.Channel:
    options: list[tuple[str, object]] = [
        ("grpc.max_receive_message_length", ANSWER_BYTES_MAX),
        # Go's servers refuse a path as the name of a host.
        ("grpc.default_authority", "localhost"),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_http_proxy", 0),
    ]
    return grpc.aio.insecure_channel(f"unix:{socket}", options=options)
