"""Two real control planes on one small API server: one CA, one leader, and captures that both know.

The nodes show projected tokens, as they do in a cluster.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent.access import Access
from agent.enrol.facts import Pulse
from agent.intents import CaptureReport, CaptureReporter
from agent.reports import Replicas
from agent.whereabouts import Whereabouts
from control.kit.clock import SystemClock
from control.model.address import parse_address
from control.server.xds.replicas import LABELS
from control.wire import node_pb2 as pb
from control.wire.delta import DeltaClient, NodeInfo
from control.wire.types import ADDRESS_TYPE, REPORT_METHOD
from control.wire.workload_pb2 import Address
from tests.support.kube.server import KubeServer, serving
from tests.support.manifests import pod, policy
from tests.support.peers.delta_client import open_stream, secure_channel
from tests.support.processes.control import Control, starting_control

DEADLINE_S = 20.0
NAMESPACE = "tulle-system"
REDIRECTION = "ambient.istio.io/redirection"


@pytest.fixture
def api() -> Iterator[KubeServer]:
    with serving() as server:
        server.namespace(NAMESPACE)
        server.namespace("shop", {"istio.io/dataplane-mode": "ambient"})
        server.install_istio_kinds()
        account = {"name": "tulle-ztunnel", "namespace": NAMESPACE}
        server.put({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account})
        ztunnel = {"name": "z1", "namespace": NAMESPACE}
        head = {"apiVersion": "v1", "kind": "Pod", "status": {"phase": "Running"}}
        spec = {"nodeName": "n1", "containers": []}
        server.put({**head, "metadata": ztunnel, "spec": spec})
        server.put(yaml.safe_load(pod()))
        server.put(yaml.safe_load(policy("{}")))
        server.put(yaml.safe_load(policy("{rules: [{oops: 1}]}", name="broken")))
        yield server


@asynccontextmanager
async def replica(folder: Path, api: KubeServer, *flags: str) -> AsyncIterator[Control]:
    value = {
        "current-context": "fake",
        "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "me"}}],
        "clusters": [{"name": "fake", "cluster": {"server": api.url}}],
        "users": [{"name": "me", "user": {"token": "secret"}}],
    }
    folder.mkdir()  # noqa: ASYNC240 once
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(value))
    source = ("--kubernetes", "--kubeconfig", str(path))
    async with starting_control(folder, *source, *flags) as control:
        await control.started()
        yield control


async def until(is_so: Callable[[], object]) -> None:
    ends_s = time.monotonic() + DEADLINE_S
    while not is_so():
        assert time.monotonic() < ends_s
        await asyncio.sleep(0.02)


def conditions(api: KubeServer, name: str) -> dict[str, str]:
    found = api.get("security.istio.io/v1", "AuthorizationPolicy", name, "shop") or {}
    rows = found.get("status", {}).get("conditions", [])
    return {each["type"]: f"{each['status']} {each['reason']}" for each in rows}


def annotations(api: KubeServer) -> dict[str, str]:
    found = api.get("v1", "Pod", "web", "shop")
    assert found is not None
    made: dict[str, str] = found["metadata"].get("annotations") or {}
    return made


async def report(control: Control, token: str, *uids: str) -> None:
    async with secure_channel(control.port, control.root_pem) as channel:
        call = channel.unary_unary(REPORT_METHOD)
        request = pb.ReportRequest(node="n1", captured_uids=uids)
        await call(
            request.SerializeToString(),
            metadata=(("authorization", f"Bearer {token}"),),
            timeout=DEADLINE_S,
        )


async def knows(control: Control, token: str, protocol: int) -> None:
    """Wait until this replica says that the pod is spoken to by HBONE (1), or plainly (0)."""
    client = DeltaClient(NodeInfo("n1", metadata={"NODE_NAME": "n1"}), (ADDRESS_TYPE,))

    def is_so(each: Any) -> bool:
        found = each.resources.get(ADDRESS_TYPE, {})
        webs = [one for name, one in found.items() if name.endswith("/web")]
        return [Address.FromString(one).workload.tunnel_protocol for one in webs] == [protocol]

    async with (
        secure_channel(control.port, control.root_pem) as channel,
        open_stream(channel, client, token) as stream,
    ):
        await stream.until(is_so)


def test_two_replicas_are_one_control_plane(api: KubeServer, tmp_path: Path) -> None:
    token = api.token("tulle-ztunnel", audience="istio-ca", namespace=NAMESPACE, pod="z1")
    web = api.get("v1", "Pod", "web", "shop")
    assert web is not None
    uid = str(web["metadata"]["uid"])

    async def main() -> None:
        async with replica(tmp_path / "a", api) as a:
            await a.logged(r"leader\.elected")
            async with replica(tmp_path / "b", api) as b:
                assert a.root_pem == b.root_pem
                await knows(a, b.token("n1"), 0)
                leads = [(await each.admin("/status"))["replica"]["leads"] for each in (a, b)]
                assert leads == [True, False]
                await until(
                    lambda: all(len(conditions(api, each)) == 2 for each in ("p", "broken"))
                )
                assert conditions(api, "p") == {
                    "Accepted": "True Accepted",
                    "Attached": "True Attached",
                }
                assert conditions(api, "broken")["Accepted"] == "False Invalid"
                for namespace in ("shop", NAMESPACE):
                    await until(lambda at=namespace: root(api, at) == a.root_pem.decode())
                await until(lambda: [each["regarding"]["name"] for each in events(api)])
                assert [each["regarding"]["name"] for each in events(api)] == ["broken"]

                await knows(a, token, 0)
                await report(b, token, uid)
                await until(lambda: annotations(api).get(REDIRECTION) == "enabled")
                await knows(b, token, 1)
                await knows(a, token, 1)
                await report(a, token)  # an agent tells every replica
                await until(lambda: REDIRECTION not in annotations(api))
                await knows(a, token, 0)
                await report(b, token)
                await knows(b, token, 0)

                assert await a.end() == 0
                await b.logged(r"leader\.elected")
                assert await b.end() == 0

    asyncio.run(main())


def one_port_for(*hosts: str) -> int:
    """A port that is free at each of these addresses."""
    with ExitStack() as stack:
        first, *others = [stack.enter_context(socket.socket()) for _ in hosts]
        first.bind((hosts[0], 0))
        port: int = first.getsockname()[1]
        for each, host in zip(others, hosts[1:], strict=True):
            each.bind((host, port))
    return port


def test_an_agent_that_resolves_no_name_tells_all_replicas(api: KubeServer, tmp_path: Path) -> None:
    """The one that has the agent's stream says where the others are."""
    hosts = ("127.0.0.2", "127.0.0.3")
    port = one_port_for(*hosts)
    for host in hosts:
        head = {"apiVersion": "v1", "kind": "Pod", "spec": {"nodeName": "n1", "containers": []}}
        meta = {"name": f"control-{host[-1]}", "namespace": NAMESPACE, "labels": dict(LABELS)}
        status = {"phase": "Running", "podIP": host, "podIPs": [{"ip": host}]}
        api.put({**head, "metadata": meta, "status": status})
    (tmp_path / "token").write_text(
        api.token("tulle-ztunnel", audience="istio-ca", namespace=NAMESPACE, pod="z1")
    )
    captured: CaptureReport = {"u1": (parse_address("10.1.0.1"),)}

    async def main() -> None:
        known: list[bool] = []
        listen = [("--listen", f"{host}:{port}") for host in hosts]
        async with (
            replica(tmp_path / "a", api, *listen[0]) as a,
            replica(tmp_path / "b", api, *listen[1]) as b,
        ):
            (tmp_path / "root.pem").write_bytes(a.root_pem)
            address = f"127.0.0.1:{a.port}"
            paths = tmp_path / "root.pem", "localhost", tmp_path / "token"
            access = Access(address, *paths)
            where = Whereabouts(f"replicas.invalid:{port}", SystemClock(), known.append)
            stream = CaptureReporter("n1", partial(access.report_to, address), where.said)
            others = Replicas(
                "n1", where, access.report_to, SystemClock(), streaming=lambda: stream.replica
            )
            await stream.report(1, captured)
            async with asyncio.TaskGroup() as tasks:
                running = tasks.create_task(others.run(lambda: captured, Pulse()))
                async with asyncio.timeout(DEADLINE_S):
                    await b.logged(r"capture\.reported")
                running.cancel()
            assert known[-1], "so peers know at once"

    asyncio.run(main())


def root(api: KubeServer, namespace: str) -> str:
    found = api.get("v1", "ConfigMap", "tulle-ca-root-cert", namespace)
    return "" if found is None else str(found["data"]["root-cert.pem"])


def events(api: KubeServer) -> list[dict[str, Any]]:
    with api.lock:
        return [each for key, each in api.store.objects.items() if key[0] == ("", "events")]
