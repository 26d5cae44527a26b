"""The ztunnel's supervisor as a process: real control plane and namespaces, a scripted agent."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from cryptography import x509

from tests.support.kernel.netns import Network, Pod, eventually
from tests.support.peers.zds_agent import Answer, ZdsAgent, zds_agent
from tests.support.processes.control import Control, running_control
from tests.support.processes.ztunnel import Ztunnel, running_ztunnel

PREFIX = "ts"
WEB = "spiffe://cluster.local/ns/shop/sa/web"
MANIFESTS = """
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {tulle.io/dataplane-mode: ambient}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: web, namespace: shop}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.90.0.1, selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
"""
POD = """
---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: shop, uid: {name}, labels: {{app: web}}}}
spec: {{nodeName: n1, serviceAccountName: web, containers: [{{name: c, image: x}}]}}
status: {{phase: Running, podIP: {ip}, podIPs: [{{ip: {ip}}}],
  conditions: [{{type: Ready, status: "True"}}]}}
"""


@dataclass
class Bed:
    control: Control
    agent: ZdsAgent
    ztunnel: Ztunnel

    async def add(self, pod: Pod, name: str = "web-1") -> Answer:
        return await self.agent.add(name, name, "shop", "web", pod.path)


@asynccontextmanager
async def bed(folder: Path, *flags: str) -> AsyncIterator[Bed]:
    (folder / "manifests").mkdir()
    pods = "".join(POD.format(name=f"web-{n}", ip=f"10.88.0.{n}") for n in (1, 2))
    (folder / "manifests/shop.yaml").write_text(MANIFESTS + pods)
    with zds_agent(folder / "zds.sock") as agent:
        async with (
            running_control(folder) as control,
            running_ztunnel(folder, control, *flags) as ztunnel,
        ):
            assert (await agent.accept()).version == 1
            await ztunnel.logged("xds.synced")
            yield Bed(control, agent, ztunnel)


def run(
    folder: Path, test: Callable[[Bed, Network], Coroutine[Any, Any, None]], *flags: str
) -> None:
    async def whole(network: Network) -> None:
        async with bed(folder, *flags) as ready:
            await test(ready, network)

    with Network(PREFIX) as network:
        asyncio.run(whole(network))


def connects(pod: Pod, target: str, port: int) -> bool:
    """Does something accept there? (It may hang up at once: nobody redirected this connection.)"""
    with pod.socket(socket.AF_INET6 if ":" in target else socket.AF_INET) as client:
        client.settimeout(2)
        return client.connect_ex((target, port)) in (0, errno.ECONNRESET)


def certificate(dump: dict[str, Any]) -> dict[str, Any] | None:
    found = [each for each in dump["certificates"] if each["identity"] == WEB]
    return found[0] if found and found[0]["state"] == "Available" else None


def test_a_pod_is_served_in_its_own_namespace_and_gone_when_deleted(tmp_path: Path) -> None:
    async def test(bed: Bed, network: Network) -> None:
        pod = network.pod("web", "10.88.0.1", "fd88::1")
        answer = await bed.add(pod)
        assert (answer.error, len(answer.sockets)) == ("", 3)
        home = os.stat("/proc/self/ns/net").st_ino
        assert os.stat(f"/proc/{bed.ztunnel.process.pid}/ns/net").st_ino == home
        ports = [each.getsockname()[1] for each in answer.sockets]
        assert set(ports) == {15008}  # an app can have all others
        answer.close()
        for port in ports:
            assert connects(pod, "10.88.0.1", port)
            assert connects(pod, "fd88::1", port)
        again = await bed.add(pod)  # the agent may ask twice
        assert [each.getsockname()[1] for each in again.sockets] == ports
        again.close()
        assert (await bed.ztunnel.get("/healthz/ready"))[0] == 500
        assert (await bed.agent.snapshot_sent()).error == ""
        dump = await bed.ztunnel.dump_when(certificate)
        assert (await bed.ztunnel.get("/healthz/ready")) == (200, b"ready\n")
        assert dump["workloadState"]["web-1"]["state"] == "Up"
        assert (await bed.agent.delete("web-1")).error == ""
        eventually(lambda: not any(connects(pod, "10.88.0.1", port) for port in ports), "closed")
        await bed.ztunnel.dump_when(lambda dump: not dump["certificates"])

    run(tmp_path, test)


def test_the_dump_shows_the_mesh_and_never_a_key(tmp_path: Path) -> None:
    async def test(bed: Bed, network: Network) -> None:
        (await bed.add(network.pod("web", "10.88.0.1"))).close()
        dump = await bed.ztunnel.dump_when(certificate)
        shown = certificate(dump)
        assert shown is not None
        assert len(shown["certChain"]) >= 1
        assert len(shown["rootCerts"]) == 1
        assert {each["name"] for each in dump["workloads"]} == {"web-1", "web-2"}
        service = next(each for each in dump["services"] if each["name"] == "web")
        assert service["vips"] == ["/10.90.0.1"]
        assert len(service["endpoints"]) == 2
        _, raw = await bed.ztunnel.get("/config_dump")
        log = "\n".join(bed.ztunnel.lines).encode()
        for text in (raw, log):
            assert b"PRIVATE" not in text
            assert b"UFJJVkFURS" not in text  # the same in base64
            assert b"key_pem" not in text
        _, page = await bed.ztunnel.get("/metrics")
        assert b'istio_build{component="ztunnel"' in page
        assert b"workload_manager_active_proxy_count 1.0" in page
        assert b"process_open_fds" in page

    run(tmp_path, test)


def test_a_worker_that_dies_is_replaced_and_serves_the_same_ports(tmp_path: Path) -> None:
    async def test(bed: Bed, network: Network) -> None:
        pod = network.pod("web", "10.88.0.1")
        answer = await bed.add(pod)
        ports = [each.getsockname()[1] for each in answer.sockets]
        before = (await bed.ztunnel.dump())["workers"]
        assert len(before) == 2
        os.kill(before[0]["pid"], signal.SIGKILL)
        after = await bed.ztunnel.dump_when(
            lambda dump: (
                len(dump["workers"]) == 2
                and all(each["ready"] for each in dump["workers"])
                and dump["workers"] != before
            )
        )
        assert after["workers"][1]["pid"] == before[1]["pid"]
        again = await bed.add(pod)  # answered only when all workers listen again
        assert (again.error, [each.getsockname()[1] for each in again.sockets]) == ("", ports)
        assert (
            "tulle_ztunnel_worker_restarts_total 1.0"
            in (await bed.ztunnel.get("/metrics"))[1].decode()
        )

    run(tmp_path, test, "--workers", "2")


def test_a_stuck_worker_does_not_hang_the_pages(tmp_path: Path) -> None:
    async def test(bed: Bed, network: Network) -> None:
        (await bed.add(network.pod("web", "10.88.0.1"))).close()
        stuck = (await bed.ztunnel.dump())["workers"][0]["pid"]
        os.kill(stuck, signal.SIGSTOP)
        try:
            async with asyncio.timeout(5):
                assert (await bed.ztunnel.get("/metrics"))[0] == 200
                dump = await bed.ztunnel.dump()
                assert "web-1" in dump["workloadState"]
                assert [each["current"] for each in dump["workers"]] == [False, True]
        finally:
            os.kill(stuck, signal.SIGCONT)
        await bed.ztunnel.logged("worker.slow")

    run(tmp_path, test, "--workers", "2")


def test_a_reconnected_agent_is_the_whole_truth(tmp_path: Path) -> None:
    async def test(bed: Bed, network: Network) -> None:
        one, two = network.pod("one", "10.88.0.1"), network.pod("two", "10.88.0.2")
        (await bed.add(one, "web-1")).close()
        (await bed.add(two, "web-2")).close()
        await bed.agent.snapshot_sent()
        bed.agent.hang_up()
        await bed.ztunnel.logged("zds.disconnected")
        assert set((await bed.ztunnel.dump())["workloadState"]) == {"web-1", "web-2"}
        await bed.agent.accept()
        (await bed.add(two, "web-2")).close()
        assert set((await bed.ztunnel.dump())["workloadState"]) == {"web-1", "web-2"}
        await bed.agent.snapshot_sent()
        assert set((await bed.ztunnel.dump())["workloadState"]) == {"web-2"}

    run(tmp_path, test)


def test_the_same_pod_in_a_new_namespace_is_a_new_pod(tmp_path: Path) -> None:
    async def test(bed: Bed, network: Network) -> None:
        old, new = network.pod("old", "10.88.0.1"), network.pod("new", "10.88.0.1")
        first = await bed.add(old)
        port = first.sockets[0].getsockname()[1]
        first.close()
        second = await bed.add(new)
        assert connects(new, "10.88.0.1", second.sockets[0].getsockname()[1])
        second.close()
        eventually(lambda: not connects(old, "10.88.0.1", port), "closed in the old namespace")
        old.delete()
        await bed.ztunnel.logged("pod.replaced")
        assert not any("certificate.forgotten" in line for line in bed.ztunnel.lines)

    run(tmp_path, test)


def test_fixed_ports_and_a_bad_request(tmp_path: Path) -> None:
    async def test(bed: Bed, network: Network) -> None:
        pod = network.pod("web", "10.88.0.1")
        answer = await bed.add(pod)
        # Istio's agent has no room for descriptors and takes such an answer for a cut one.
        assert (answer.error, answer.sockets) == ("", [])
        assert all(connects(pod, "10.88.0.1", port) for port in (15001, 15006, 15008))
        not_a_netns = await bed.agent.add("x", "x", "shop", "web", tmp_path)
        assert "netns_unusable" in not_a_netns.error
        assert (await bed.agent.add("x", "", "shop", "web", tmp_path)).error

    run(tmp_path, test, "--fixed-ports")


@asynccontextmanager
async def control_again(folder: Path, port: int) -> AsyncIterator[None]:
    """The same control plane (its folder) where it was before (its port)."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "control.server.main", "--listen", f"127.0.0.1:{port}"),
        *("--manifests", str(folder / "manifests"), "--state", str(folder / "state")),
        *("--metrics", "127.0.0.1:0", "--admin", str(folder / "admin.sock")),
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        await process.wait()


def test_the_control_plane_may_go_and_come_back(tmp_path: Path) -> None:
    async def test(bed: Bed, network: Network) -> None:
        (await bed.add(network.pod("web", "10.88.0.1"))).close()
        serial = certificate(await bed.ztunnel.dump_when(certificate))
        status, _ = await bed.ztunnel.get(f"/certificates/rotate?identity={WEB}", "POST")
        assert status == 200
        rotated = await bed.ztunnel.dump_when(lambda dump: certificate(dump) != serial)
        bed.control.process.send_signal(signal.SIGTERM)
        await bed.ztunnel.logged("xds.disconnected")
        dump = await bed.ztunnel.dump_when(lambda dump: not dump["control"]["connected"])
        assert len(dump["workloads"]) == 2
        assert certificate(dump) == certificate(rotated)
        assert (await bed.ztunnel.get("/healthz/ready"))[0] == 500  # no snapshot of pods yet
        await bed.agent.snapshot_sent()
        assert (await bed.ztunnel.get("/healthz/ready"))[0] == 200  # the last good state is enough
        (await bed.add(network.pod("two", "10.88.0.2"), "web-2")).close()
        await bed.control.process.wait()
        only_one = MANIFESTS + POD.format(name="web-1", ip="10.88.0.1")
        (tmp_path / "manifests/shop.yaml").write_text(only_one)
        async with control_again(tmp_path, bed.control.port):
            dump = await bed.ztunnel.dump_when(lambda dump: len(dump["workloads"]) == 1)
            assert dump["control"]["connected"]
            assert dump["workloadState"]["web-2"]["state"] == "Pending"

    run(tmp_path, test)


def test_the_workers_show_the_pods_own_certificate(tmp_path: Path) -> None:
    async def test(bed: Bed, network: Network) -> None:
        pod = network.pod("web", "10.88.0.1", "fd88::1")
        (await bed.add(pod)).close()
        before = await bed.ztunnel.dump_when(certificate)
        for address in ("10.88.0.1", "fd88::1"):
            assert await asyncio.to_thread(shown_serial, pod, address) == serial_of(before)
        await bed.ztunnel.get("/certificates/rotate", "POST")
        after = await bed.ztunnel.dump_when(lambda dump: certificate(dump) != certificate(before))
        for address in ("10.88.0.1", "fd88::1"):
            assert await asyncio.to_thread(shown_serial, pod, address) == serial_of(after)

    run(tmp_path, test, "--fixed-ports")


def serial_of(dump: dict[str, Any]) -> str:
    found = certificate(dump)
    assert found is not None
    return str(found["certChain"][0]["serialNumber"])


def shown_serial(pod: Pod, address: str) -> str:
    """Serial of the certificate on the pod's HBONE port. TLS 1.3 shows it to any client."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with pod.socket(family) as plain:
        plain.connect((address, 15008))
        with context.wrap_socket(plain) as secure:
            shown = secure.getpeercert(binary_form=True)
    assert shown is not None
    return str(x509.load_der_x509_certificate(shown).serial_number)


def test_a_killed_supervisor_takes_its_workers_and_listeners_along(tmp_path: Path) -> None:
    async def test(bed: Bed, network: Network) -> None:
        pod = network.pod("web", "10.88.0.1")
        answer = await bed.add(pod)
        port = answer.sockets[0].getsockname()[1]
        answer.close()
        children = psutil.Process(bed.ztunnel.process.pid).children()
        os.kill(children[0].pid, signal.SIGSTOP)  # not even able to notice
        bed.ztunnel.process.kill()
        await bed.ztunnel.process.wait()
        eventually(lambda: not any(each.is_running() for each in children), "workers gone")
        eventually(lambda: not connects(pod, "10.88.0.1", port), "listeners gone")

    run(tmp_path, test)


def test_it_drains_and_leaves_nothing_behind(tmp_path: Path) -> None:
    async def test(bed: Bed, network: Network) -> None:
        pod = network.pod("web", "10.88.0.1")
        answer = await bed.add(pod)
        port = answer.sockets[0].getsockname()[1]
        answer.close()
        children = psutil.Process(bed.ztunnel.process.pid).children()
        assert len(children) == 1
        memory = psutil.Process(bed.ztunnel.process.pid).memory_full_info()
        assert memory.pss < 60 * 1024 * 1024  # RSS also counts what other processes share
        assert await bed.ztunnel.end() == 0
        assert not any(each.is_running() for each in children)
        eventually(lambda: not connects(pod, "10.88.0.1", port), "closed")
        await bed.ztunnel.logged("drain.started")

    run(tmp_path, test)
