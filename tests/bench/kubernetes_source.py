"""A control plane on an API server with many pods: time to be ready, memory, time of a change.

    kubernetes_source.py [--pods N] [--services N] [--nodes N] [--changes N] [--pages]

A real `tulle-control` follows an API server of this script, which answers from bytes that were made
before (7 KiB a pod, as a real cluster's). Nodes are delta xDS streams that know everything already,
as after a lost connection; a change is timed from the event's write to each node's response.
`--pages`: a server without WatchList.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import pathlib
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import grpc

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from control.wire import discovery_pb2 as pb
from control.wire.types import ADDRESS_TYPE, DELTA_METHOD, MESSAGE_BYTES_MAX
from tests.support.processes.control import Control, starting_control

WATCHES = pathlib.Path(__file__).parents[1] / "vectors" / "kubernetes" / "watch"
PODS_OF_A_SLICE = 10
DEADLINE_S = 120.0
ARRIVING = 20  # nodes that connect at one time
Json = dict[str, Any]

# -- objects -------------------------------------------------------------------------------------


def template() -> Json:
    """A running pod of a real cluster."""
    for line in (WATCHES / "pods-init-and-poststart.jsonl").read_text().splitlines():
        value: Json = json.loads(line)["object"]
        if value["status"].get("podIPs") and value["status"]["phase"] == "Running":
            return value
    raise SystemExit("no running pod is recorded")


class Objects:
    def __init__(self, pods: int, services: int, nodes: int) -> None:
        self.count, self.services, self.nodes = pods, services, nodes
        self._template = json.dumps(template())

    def pod(self, number: int, *, ready: bool = True) -> bytes:
        value = json.loads(self._template)
        service = number % self.services
        meta = value["metadata"]
        meta["name"], meta["namespace"] = self._name(number), namespace(service)
        meta["uid"] = f"6ef20b99-05a3-4668-ae75-{number:012x}"
        meta["labels"] = {"app": f"web-{service}", "pod-template-hash": "6d8f7c9b5"}
        meta["annotations"] = {"ambient.istio.io/redirection": "enabled"}
        meta["managedFields"] = [{"manager": "kubelet", "fieldsV1": {"padding": "x" * 1500}}]
        value["spec"]["nodeName"] = f"node-{number % self.nodes}"
        value["status"]["podIP"] = address(number)
        value["status"]["podIPs"] = [{"ip": address(number)}, {"ip": f"fd00::{number:x}"}]
        for each in value["status"]["conditions"]:
            if each["type"] == "Ready":
                each["status"] = "True" if ready else "False"
        return json.dumps(value).encode()

    def _key(self, number: int) -> tuple[str, str]:
        """An API server lists by name: the pods of a Deployment come together."""
        service = number % self.services
        return namespace(service), self._name(number)

    def _name(self, number: int) -> str:
        return f"web-{number % self.services}-6d8f7c9b5-{number:05x}"

    def kinds(self) -> Iterator[tuple[str, list[bytes]]]:
        names = {namespace(each) for each in range(self.services)}
        labels = {"istio.io/dataplane-mode": "ambient"}
        yield (
            "namespaces",
            [encoded({"name": each, "labels": labels, "uid": each}) for each in sorted(names)],
        )
        yield "pods", [self.pod(each) for each in sorted(range(self.count), key=self._key)]
        yield "services", [self._service(each) for each in range(self.services)]
        yield "endpointslices", [self._slice(each) for each in range(self.services)]
        zone = {"topology.kubernetes.io/zone": "a"}
        yield (
            "nodes",
            [encoded({"name": f"node-{each}", "labels": zone}) for each in range(self.nodes)],
        )
        yield (
            "serviceaccounts",
            [encoded({"name": "default", "namespace": each}) for each in sorted(names)],
        )

    def _service(self, number: int) -> bytes:
        meta = {"name": f"web-{number}", "namespace": namespace(number), "uid": f"s-{number}"}
        vip = f"10.96.{number // 256}.{number % 256}"
        ports = [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}]
        spec = {"selector": {"app": f"web-{number}"}, "clusterIPs": [vip], "ports": ports}
        return encoded(meta, spec=spec)

    def _slice(self, number: int) -> bytes:
        owner = {"kubernetes.io/service-name": f"web-{number}"}
        meta = {"name": f"web-{number}-x", "namespace": namespace(number), "labels": owner}
        endpoints = [
            {
                "addresses": [address(each)],
                "conditions": {"ready": True},
                "targetRef": {
                    "kind": "Pod",
                    "namespace": namespace(number),
                    "name": self._name(each),
                },
            }
            for each in range(number, self.count, self.services)
        ]
        ports = [{"name": "http", "port": 8080, "protocol": "TCP"}]
        return encoded(meta, endpoints=endpoints, ports=ports)


def namespace(service: int) -> str:
    return f"shop-{service % 50}"


def address(number: int) -> str:
    return f"10.{128 + number // 65536}.{number // 256 % 256}.{number % 256}"


def encoded(meta: Json, **more: Any) -> bytes:
    return json.dumps({"metadata": meta, **more}).encode()


# -- the API server ------------------------------------------------------------------------------


class Server:
    def __init__(self, objects: Objects, has_watch_lists: bool) -> None:
        self._kinds = dict(objects.kinds())
        self._has_watch_lists = has_watch_lists
        self._pods: list[asyncio.StreamWriter] = []
        self._version = 1000
        self.port = 0

    async def start(self) -> asyncio.Server:
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0, limit=2**20)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                if found := re.search(r"(?i)^content-length: *([0-9]+)", head, re.MULTILINE):
                    await reader.readexactly(int(found[1]))
                url = urlsplit(head.split()[1])
                fields = {name: each[0] for name, each in parse_qs(url.query).items()}
                if "/customresourcedefinitions/" in url.path:
                    await self._undefined(url.path.rpartition("/")[2], writer)
                else:
                    await self._answer(url.path.rpartition("/")[2], fields, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def _undefined(self, name: str, writer: asyncio.StreamWriter) -> None:
        """There are no kinds of policies."""
        value = {"kind": "Status", "code": 404, "reason": "NotFound", "message": f"no {name}"}
        body = json.dumps(value).encode()
        writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        await writer.drain()

    async def _answer(self, plural: str, fields: Json, writer: asyncio.StreamWriter) -> None:
        found = self._kinds.get(plural)
        if found is None:
            writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        elif fields.get("watch") != "true":
            writer.write(self._page(found, fields))
        elif "sendInitialEvents" in fields and not self._has_watch_lists:
            writer.write(b"HTTP/1.1 422 Unprocessable Entity\r\nContent-Length: 0\r\n\r\n")
        else:
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            if "sendInitialEvents" in fields:
                for each in found:
                    writer.write(line(b"ADDED", each))
                    await writer.drain()
                mark = {"resourceVersion": "1000", "annotations": END}
                writer.write(line(b"BOOKMARK", encoded(mark)))
            if plural == "pods":
                self._pods.append(writer)
        await writer.drain()

    def _page(self, found: list[bytes], fields: Json) -> bytes:
        start, limit = int(fields.get("continue") or 0), int(fields["limit"])
        rest = str(start + limit) if start + limit < len(found) else ""
        items = b",".join(found[start : start + limit])
        meta = json.dumps({"resourceVersion": "1000", "continue": rest}).encode()
        body = b'{"metadata":%b,"items":[%b]}' % (meta, items)
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)

    def change(self, pod: bytes) -> None:
        for each in self._pods:
            each.write(line(b"MODIFIED", pod))


END = {"k8s.io/initial-events-end": "true"}


def line(kind: bytes, value: bytes) -> bytes:
    data = b'{"type":"%b","object":%b}\n' % (kind, value)
    return b"%x\r\n%b\r\n" % (len(data), data)


# -- the nodes -----------------------------------------------------------------------------------


class Nodes:
    """Streams that acknowledge everything; `arrived` has the time of each response to a change."""

    def __init__(self) -> None:
        self.arrived: dict[str, list[float]] = {}
        self.known: dict[str, str] = {}  # versions, which the first node asks for
        self.ready = 0
        self._news = asyncio.Event()

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not holds():
                self._news.clear()
                await self._news.wait()

    async def follow(self, control: Control, node: str) -> None:
        channel = grpc.aio.secure_channel(
            f"127.0.0.1:{control.port}",
            grpc.ssl_channel_credentials(control.root_pem),
            options=[
                ("grpc.ssl_target_name_override", "localhost"),
                ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
                ("grpc.use_local_subchannel_pool", 1),
            ],
        )
        async with channel:
            token = (("authorization", f"Bearer {control.token(node)}"),)
            call: Any = channel.stream_stream(DELTA_METHOD)(metadata=token)
            request = pb.DeltaDiscoveryRequest(
                type_url=ADDRESS_TYPE, initial_resource_versions=self.known
            )
            request.node.id = f"ztunnel~{node}"
            request.node.metadata.fields["NODE_NAME"].string_value = node
            await call.write(request.SerializeToString())
            is_new = True
            while (data := await call.read()) is not grpc.aio.EOF:
                response = pb.DeltaDiscoveryResponse.FromString(data)
                self._take(response, is_new)
                is_new = False
                answer = pb.DeltaDiscoveryRequest(
                    type_url=ADDRESS_TYPE, response_nonce=response.nonce
                )
                await call.write(answer.SerializeToString())

    def _take(self, response: pb.DeltaDiscoveryResponse, is_new: bool) -> None:
        now_s = time.monotonic()
        if is_new:
            self.known.update({each.name: each.version for each in response.resources})
            self.ready += 1
        else:
            for each in response.resources:
                self.arrived.setdefault(each.name, []).append(now_s)
        self._news.set()


def memory_mib(pid: int) -> tuple[float, float]:
    """Resident now, and at most so far."""
    text = pathlib.Path(f"/proc/{pid}/status").read_text()
    found = dict(each.split(":", 1) for each in text.splitlines() if each.startswith("Vm"))
    now, most = (int(found[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM"))
    return now, most


def cpu_s(pid: int) -> float:
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


async def run(arguments: argparse.Namespace) -> None:
    objects = Objects(arguments.pods, arguments.services, arguments.nodes or 500)
    server = Server(objects, not arguments.pages)
    async with await server.start():
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            config = {
                "current-context": "a",
                "contexts": [{"name": "a", "context": {"cluster": "a"}}],
                "clusters": [
                    {"name": "a", "cluster": {"server": f"http://127.0.0.1:{server.port}"}}
                ],
            }
            (folder / "config").write_text(json.dumps(config))
            flags = ("--kubernetes", "--kubeconfig", str(folder / "config"), "--ca-in-state")
            flags += ("--log-level", "info")  # lines for each response are for tests
            start_s = time.monotonic()
            async with starting_control(folder, *flags) as control:
                await control.started(DEADLINE_S)
                pid = control.process.pid
                took_s = time.monotonic() - start_s
                now, most = memory_mib(pid)
                used_s = cpu_s(pid)
                say(f"ready in {took_s:.2f} s (CPU {used_s:.2f} s), {now:.0f} MiB, peak {most:.0f}")
                await changes(arguments, objects, server, control)
                now, most = memory_mib(pid)
                say(f"at the end {now:.0f} MiB, peak {most:.0f}, CPU {cpu_s(pid):.2f} s")


async def changes(
    arguments: argparse.Namespace, objects: Objects, server: Server, control: Control
) -> None:
    if not arguments.nodes:
        return
    nodes = Nodes()
    async with asyncio.TaskGroup() as tasks:
        running = []
        for number in range(arguments.nodes):
            name = f"node-{number}"
            running.append(tasks.create_task(nodes.follow(control, name), name=name))
            await nodes.until(lambda: nodes.ready > max(0, len(running) - ARRIVING))
        await nodes.until(lambda: nodes.ready == arguments.nodes)
        now, most = memory_mib(control.process.pid)
        say(f"{arguments.nodes} nodes: {now:.0f} MiB, peak {most:.0f}")
        used_s = cpu_s(control.process.pid)
        took = [
            each
            for number in range(arguments.changes)
            for each in await change(
                nodes, server, objects.pod(number * 37, ready=False), arguments
            )
        ]
        used_s = (cpu_s(control.process.pid) - used_s) / arguments.changes
        for each in running:
            each.cancel()
    took.sort()
    median, most = (took[int(len(took) * share)] * 1000 for share in (0.5, 0.99))
    say(f"{arguments.changes} changes: median {median:.0f} ms, p99 {most:.0f} ms")
    say(
        f"longest {took[-1] * 1000:.0f} ms, mean {statistics.mean(took) * 1000:.0f} ms, "
        f"CPU of the control plane {used_s * 1000:.0f} ms a change"
    )


async def change(
    nodes: Nodes, server: Server, pod: bytes, arguments: argparse.Namespace
) -> list[float]:
    """Time of one change to each node."""
    nodes.arrived.clear()
    start_s = time.monotonic()
    server.change(pod)
    await nodes.until(lambda: sum(map(len, nodes.arrived.values())) == arguments.nodes)
    took = [each - start_s for times in nodes.arrived.values() for each in times]
    await asyncio.sleep(arguments.pause_s)
    return took


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pods", type=int, default=10_000)
    parser.add_argument("--services", type=int, default=1_000)
    parser.add_argument("--nodes", type=int, default=0)
    parser.add_argument("--changes", type=int, default=30)
    parser.add_argument("--pause-s", type=float, default=0.2)
    parser.add_argument("--pages", action="store_true")
    asyncio.run(run(parser.parse_args()))
