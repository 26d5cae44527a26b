"""The runtime in memory beside what a containerd 2.1.9 answered."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.json_format import MessageToDict, ParseDict

from agent.cri import runtime_pb2 as pb
from tests.support.kube.cri import FakeRuntime, FakeSandbox

VECTORS = Path(__file__).parents[3] / "vectors" / "kubernetes" / "cri"
WEB = FakeSandbox(
    uid="95c8fcf2-e103-42ca-8599-4f2e296b5be3",
    name="web-1",
    id="c2a3bde780fa60e2058fef66ea68ee33e906178294eb2535a00e12f4f341ca50",
    netns="/var/run/netns/cni-7b47c577-0edd-6930-016e-9e8db8ab1c95",
    pid=5407,
    ips=("10.244.1.7", "fd44:0:0:1::7"),
    created_at=1795757161332702971,
)


def recorded(name: str) -> Any:
    return json.loads((VECTORS / name).read_text())


def narrowed(record: Any, kind: Any) -> Any:
    """The recording, with the fields that we know of."""
    return as_dict(ParseDict(record, kind(), ignore_unknown_fields=True))


def as_dict(message: Any) -> Any:
    return MessageToDict(message, preserving_proto_field_name=True)


def asked(
    runtime: FakeRuntime, socket: Path, method: str, request: Any, kind: Any
) -> dict[str, Any]:
    async def scenario() -> Any:
        async with (
            runtime.serving(socket),
            grpc.aio.insecure_channel(f"unix:{socket}") as channel,
        ):
            call = channel.unary_unary(
                f"/runtime.v1.RuntimeService/{method}",
                request_serializer=type(request).SerializeToString,
                response_deserializer=kind.FromString,
            )
            return as_dict(await call(request, timeout=5.0))

    found: dict[str, Any] = asyncio.run(scenario())
    return found


def test_version(tmp_path: Path) -> None:
    answer = asked(
        FakeRuntime(), tmp_path / "s", "Version", pb.VersionRequest(), pb.VersionResponse
    )
    assert answer == narrowed(recorded("Version.json"), pb.VersionResponse)


def test_list_of_sandboxes(tmp_path: Path) -> None:
    record = recorded("ListPodSandbox.json")
    runtime = FakeRuntime()
    for each in record["items"]:
        runtime.put(
            FakeSandbox(
                **each["metadata"],
                id=each["id"],
                created_at=int(each["created_at"]),
                is_ready="state" not in each,
            )
        )
    answer = asked(
        runtime,
        tmp_path / "s",
        "ListPodSandbox",
        pb.ListPodSandboxRequest(),
        pb.ListPodSandboxResponse,
    )
    assert answer == narrowed(record, pb.ListPodSandboxResponse)


def test_status_of_a_sandbox(tmp_path: Path) -> None:
    runtime = FakeRuntime()
    runtime.put(WEB)
    request = pb.PodSandboxStatusRequest(pod_sandbox_id=WEB.id, verbose=True)
    answer = asked(
        runtime, tmp_path / "s", "PodSandboxStatus", request, pb.PodSandboxStatusResponse
    )
    info = json.loads(answer.pop("info")["info"])
    plain = recorded("PodSandboxStatus-plain.json")
    assert answer == narrowed(plain, pb.PodSandboxStatusResponse)
    real = recorded("PodSandboxStatus-info.json")["info"]
    assert (info["pid"], info["netNamespaceClosed"]) == (real["pid"], real["netNamespaceClosed"])
    assert info["config"]["metadata"].items() <= real["config"]["metadata"].items()
    assert (
        info["runtimeSpec"]["linux"]["namespaces"][-1]
        in (real["runtimeSpec"]["linux"]["namespaces"])
    )


def test_an_unknown_sandbox(tmp_path: Path) -> None:
    request = pb.PodSandboxStatusRequest(pod_sandbox_id="absent", verbose=True)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        asked(
            FakeRuntime(),
            tmp_path / "s",
            "PodSandboxStatus",
            request,
            pb.PodSandboxStatusResponse,
        )
    record = recorded("PodSandboxStatus-unknown.json")
    assert refused.value.code().name == record["code"]
    assert refused.value.details() == record["details"]


def test_a_new_reader_gets_the_events_of_the_past(tmp_path: Path) -> None:
    lines = (VECTORS / "GetContainerEvents.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    host, pod = (
        FakeSandbox(uid="u1", name="hostnet-1", id="h", host_network=True),
        FakeSandbox(uid="u2", name="short-1", id="p", ips=("10.244.1.25", "fd44:0:0:1::19")),
    )
    runtime = FakeRuntime()
    for sandbox in (host, pod):
        runtime.run(sandbox)
        runtime.stop(runtime.sandboxes[sandbox.id])

    async def scenario() -> list[Any]:
        async with (
            runtime.serving(tmp_path / "s"),
            grpc.aio.insecure_channel(f"unix:{tmp_path}/s") as channel,
        ):
            call = channel.unary_stream(
                "/runtime.v1.RuntimeService/GetContainerEvents",
                request_serializer=pb.GetEventsRequest.SerializeToString,
                response_deserializer=pb.ContainerEventResponse.FromString,
            )(pb.GetEventsRequest())
            stream = aiter(call)
            return [as_dict(await anext(stream)) for _ in range(6)]

    answers = asyncio.run(scenario())
    shapes = [(shape(each), kind(each)) for each in answers]
    assert [each for each, _ in shapes] == [*["NODE"] * 3, *["2 addresses"] * 3]
    real = {(shape(each), kind(each)) for each in map(narrowed_event, records)}
    assert set(shapes) <= real


def narrowed_event(record: Any) -> Any:
    return narrowed(record, pb.ContainerEventResponse)


def kind(event: Any) -> tuple[str, str]:
    return event.get("container_event_type", ""), event["pod_sandbox_status"].get("state", "")


def shape(event: Any) -> str:
    status = event["pod_sandbox_status"]
    network = status["linux"]["namespaces"]["options"].get("network", "")
    network_status = status["network"]
    addresses = len(network_status.get("additional_ips", [])) + ("ip" in network_status)
    return network or f"{addresses} addresses"
