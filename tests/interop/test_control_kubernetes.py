"""A real control plane on the small API server: what a node gets of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import yaml

from control.wire import workload_pb2
from control.wire.delta import DeltaClient, NodeInfo
from control.wire.types import ADDRESS_TYPE
from tests.support.kube.server import KubeServer, serving
from tests.support.kube.status import refusal
from tests.support.manifests import pod
from tests.support.peers.delta_client import Stream, open_stream, secure_channel
from tests.support.processes.control import Control, starting_control

DEADLINE_S = 20.0


@pytest.fixture
def api() -> Iterator[KubeServer]:
    with serving() as server:
        server.namespace("shop", {"istio.io/dataplane-mode": "ambient"})
        server.namespace("tulle-system")
        server.put(yaml.safe_load(pod()))
        yield server


def kubeconfig(folder: Path, api: KubeServer) -> Path:
    value = {
        "current-context": "fake",
        "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "me"}}],
        "clusters": [{"name": "fake", "cluster": {"server": api.url}}],
        "users": [{"name": "me", "user": {"token": "secret"}}],
    }
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(value))
    return path


@asynccontextmanager
async def node_of(control: Control) -> AsyncIterator[Stream]:
    client = DeltaClient(NodeInfo("n1", metadata={"NODE_NAME": "n1"}), (ADDRESS_TYPE,))
    async with (
        secure_channel(control.port, control.root_pem) as channel,
        open_stream(channel, client, control.token("n1")) as stream,
    ):
        yield stream


def pods(stream: Stream) -> set[str]:
    return {name.rpartition("/")[2] for name in stream.resources.get(ADDRESS_TYPE, ())}


def test_a_node_gets_what_the_api_server_has_and_only_what_changes(
    api: KubeServer, tmp_path: Path
) -> None:
    flags = ("--kubernetes", "--kubeconfig", str(kubeconfig(tmp_path, api)), "--context", "fake")

    async def main() -> None:
        async with starting_control(tmp_path, *flags) as control:
            await control.started()
            assert api.url in await control.logged(r"control\.started")
            status = await control.admin("/status")
            assert status["sources"] == [f"{api.url} (fake)"]
            async with node_of(control) as stream:
                await stream.until(lambda each: pods(each) == {"web"})
                with api.away():
                    api.put(yaml.safe_load(pod("b", address="10.1.0.2")))
                    api.compact()
                    await control.logged(r"kube\.trouble.*pods")
                await stream.until(lambda each: pods(each) == {"web", "b"})
                added = [
                    one.name.rpartition("/")[2] for each in stream.updates for one in each.added
                ]
                assert sorted(added) == ["b", "web"], "each was sent once"
            assert await control.end() == 0

    asyncio.run(main())


def test_a_ztunnel_knows_its_pod_before_the_kubelet_says_where_it_is(
    api: KubeServer, tmp_path: Path
) -> None:
    """Its agent may talk to another replica, which alone hears the report."""
    flags = ("--kubernetes", "--kubeconfig", str(kubeconfig(tmp_path, api)), "--ca-in-state")

    def addresses(stream: Stream) -> list[int]:
        found = stream.resources.get(ADDRESS_TYPE, {}).items()
        return [
            len(workload_pb2.Address.FromString(each).workload.addresses)
            for name, each in found
            if name.endswith("/new")
        ]

    async def main() -> None:
        async with starting_control(tmp_path, *flags) as control:
            await control.started()
            async with node_of(control) as stream:
                api.put(yaml.safe_load(pod("new", address="")))
                await stream.until(lambda each: addresses(each) == [0])
                api.put(yaml.safe_load(pod("new", address="10.1.0.9")))
                await stream.until(lambda each: addresses(each) == [1])

    asyncio.run(main())


def test_it_ends_when_told_to_while_it_still_waits_for_the_api_server(
    api: KubeServer, tmp_path: Path
) -> None:
    api.fail(".*/pods", refusal(403, "Forbidden", "pods is forbidden"))
    env_file = kubeconfig(tmp_path, api)

    async def main() -> None:
        flags = ("--kubernetes", "--kubeconfig", str(env_file))
        async with starting_control(tmp_path, *flags) as control:
            assert "pods is forbidden" in await control.logged(r"kube\.trouble")
            assert not (tmp_path / "admin.sock").exists(), "it is not ready"
            assert await control.end() == 0
            assert not any("control.started" in line for line in control.lines)

    asyncio.run(main())


def test_a_port_that_is_taken_is_said_and_nothing_else(api: KubeServer, tmp_path: Path) -> None:
    flags = ("--kubernetes", "--kubeconfig", str(kubeconfig(tmp_path, api)))
    taken = ("--metrics", f"127.0.0.1:{api.port}")

    async def main() -> None:
        async with starting_control(tmp_path, *flags, *taken) as control:
            assert "already in use" in await control.logged(r"control\.failed")
            async with asyncio.timeout(DEADLINE_S):
                assert await control.process.wait() == 2
            assert not any("Traceback" in line for line in control.lines)

    asyncio.run(main())
