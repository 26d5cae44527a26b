"""Our ztunnel on a node whose agent redirects by packet filter rules, as Istio's does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.kernel.netns import DEADLINE_S, Network, Pod
from tests.support.kernel.netns import run as command
from tests.support.peers.zds_agent import zds_agent
from tests.support.processes.control import running_control
from tests.support.processes.ztunnel import Ztunnel, running_ztunnel

PREFIX = "tr"
RULES = Path(__file__).parents[2] / "support/kernel/redirect.nft"
MANIFESTS = """
apiVersion: v1
kind: Namespace
metadata: {name: shop}
"""
POD = """
---
apiVersion: v1
kind: Pod
metadata:
  name: {name}
  namespace: shop
  uid: {name}
  annotations: {{ambient.istio.io/redirection: enabled}}
spec: {{nodeName: n1, serviceAccountName: {name}, containers: [{{name: c, image: x}}]}}
status: {{phase: Running, podIP: {v4}, podIPs: [{{ip: {v4}}}, {{ip: "{v6}"}}],
  conditions: [{{type: Ready, status: "True"}}]}}
"""
PODS = {"web": ("10.88.0.1", "fd88::1"), "api": ("10.88.0.2", "fd88::2")}
OUTSIDE = ("10.88.0.9", "fd88::9")


def redirect(pod: Pod) -> None:
    command("ip", "netns", "exec", pod.namespace, "nft", "-f", str(RULES))
    for family, every in (("-4", "0.0.0.0/0"), ("-6", "::/0")):
        ip = ("ip", "-n", pod.namespace, family)
        command(*ip, "rule", "add", "fwmark", "0x111/0xfff", "pref", "32764", "lookup", "100")
        command(*ip, "route", "add", "local", every, "dev", "lo", "table", "100")


def exchange(client: Pod, server: Pod, address: str) -> str:
    """Send bytes there and back; the client's address as the server sees it."""
    with server.listen(address, 8080) as listener:
        listener.settimeout(DEADLINE_S)
        with client.socket(listener.family) as sock:
            sock.connect((address, 8080))
            sock.sendall(b"there")
            accepted, peer = listener.accept()
            with accepted:
                accepted.settimeout(DEADLINE_S)
                assert accepted.recv(64) == b"there"
                accepted.sendall(b"and back")
                assert sock.recv(64) == b"and back"
    return str(peer[0])


@dataclass
class Bed:
    pods: dict[str, Pod]
    outside: Pod
    ztunnel: Ztunnel


@asynccontextmanager
async def bed(folder: Path, network: Network) -> AsyncIterator[Bed]:
    """Two pods behind the rules, one outside the mesh."""
    (folder / "manifests").mkdir()
    text = MANIFESTS + "".join(POD.format(name=n, v4=v4, v6=v6) for n, (v4, v6) in PODS.items())
    (folder / "manifests/shop.yaml").write_text(text)
    pods = {name: network.pod(name, *addresses) for name, addresses in PODS.items()}
    outside = network.pod("out", *OUTSIDE)
    with zds_agent(folder / "zds.sock") as agent:
        async with (
            running_control(folder) as control,
            running_ztunnel(folder, control, "--fixed-ports") as ztunnel,
        ):
            assert (await agent.accept()).version == 1
            await ztunnel.logged("xds.synced")
            for name, pod in pods.items():
                redirect(pod)
                answer = await agent.add(name, name, "shop", name, pod.path)
                # Istio's agent takes an answer with descriptors for a truncated one.
                assert (answer.error, answer.sockets) == ("", [])
            await ztunnel.dump_when(
                lambda dump: [each["state"] for each in dump["certificates"]] == ["Available"] * 2
            )
            yield Bed(pods, outside, ztunnel)


def run(folder: Path, test: Callable[[Bed], Coroutine[Any, Any, None]]) -> None:
    async def whole(network: Network) -> None:
        async with bed(folder, network) as ready:
            await test(ready)

    with Network(PREFIX) as network:
        asyncio.run(whole(network))


@pytest.mark.parametrize("version", [0, 1], ids=["v4", "v6"])
def test_marked_dials_pass_the_rules_and_apps_see_their_clients(
    tmp_path: Path, version: int
) -> None:
    async def test(bed: Bed) -> None:
        web, api, outside = PODS["web"][version], PODS["api"][version], OUTSIDE[version]

        async def seen(client: Pod, server: Pod, address: str) -> str:
            return await asyncio.to_thread(exchange, client, server, address)

        assert await seen(bed.pods["web"], bed.pods["api"], api) == web
        tunnelled = await bed.ztunnel.logged("inbound")
        assert "spiffe://cluster.local/ns/shop/sa/web" in tunnelled
        assert await seen(bed.outside, bed.pods["api"], api) == outside, "in plaintext"
        assert await seen(bed.pods["web"], bed.outside, outside) == web, "past the mesh"

    run(tmp_path, test)


def test_a_client_that_dials_our_plaintext_port_itself_is_refused(tmp_path: Path) -> None:
    async def test(bed: Bed) -> None:
        def knock() -> bytes:
            """The reset may be here before connect() returns."""
            with bed.outside.socket() as sock:
                sock.connect((PODS["api"][0], 15006))
                return sock.recv(1)

        with pytest.raises(ConnectionResetError):
            await asyncio.to_thread(knock)

    run(tmp_path, test)
