"""Recordings of a real API server: their requests, their answers, and the cluster they were made
on."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.kube.server import KubeServer, serving

HTTP = Path(__file__).parents[2] / "vectors" / "kubernetes" / "http"
DEADLINE_S = 20.0
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Reply:
    code: int
    headers: dict[str, str]
    body: bytes

    @property
    def lines(self) -> list[Json]:
        return [json.loads(each) for each in self.body.splitlines()]


def recording(name: str) -> tuple[bytes, Reply]:
    """The request's bytes and the answer."""
    text = (HTTP / f"{name}.http").read_text()
    asked, _, answered = text.partition("\n<<<\n")
    head, _, body = asked.partition("\n>>>\n")[2].partition("\n\n")
    request = head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body.strip().encode()
    status, _, body = answered.partition("\n\n")
    first, *headers = status.splitlines()
    return request, Reply(int(first.split()[1]), _headers(headers), body.rstrip("\n").encode())


def _headers(lines: list[str]) -> dict[str, str]:
    pairs = (each.partition(":") for each in lines)
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


def ask(port: int, request: bytes) -> Reply:
    head, _, content = request.partition(b"\r\n\r\n")
    head = re.sub(rb"\r\n(Content-Length|Connection): [^\r]+", b"", head)
    head += b"\r\nConnection: close\r\nContent-Length: %d" % len(content)
    request = head + b"\r\n\r\n" + content
    with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S) as connection:
        connection.sendall(request)
        data = b""
        while part := connection.recv(65536):
            data += part
    head, _, body = data.partition(b"\r\n\r\n")
    first, *headers = head.decode().split("\r\n")
    reply = Reply(int(first.split()[1]), _headers(headers), body)
    if "transfer-encoding" not in reply.headers:
        return Reply(reply.code, reply.headers, body.rstrip(b"\n"))
    return Reply(reply.code, reply.headers, _dechunked(body))


def _dechunked(data: bytes) -> bytes:
    parts = []
    while data:
        size, _, data = data.partition(b"\r\n")
        parts.append(data[: int(size, 16)])
        data = data[int(size, 16) + 2 :]
    return b"".join(parts)


@contextmanager
def recorded_cluster() -> Iterator[KubeServer]:
    """The cluster of the recordings: configmaps c0 to c6, a definition, a pod with a token."""
    with serving() as server:
        server.namespace("vec")
        server.namespace("shop")
        for number in range(7):
            value = {"apiVersion": "v1", "kind": "ConfigMap", "data": {"n": str(number)}}
            server.put({**value, "metadata": {"name": f"c{number}", "namespace": "vec"}})
        account = {"apiVersion": "v1", "kind": "ServiceAccount"}
        server.put({**account, "metadata": {"name": "default", "namespace": "vec"}})
        server.put({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "kn1"}})
        server.put(pod("tok", "vec"))
        server.put(pod("web-1", "shop"))
        yield server


def pod(name: str, namespace: str) -> Json:
    head = {"apiVersion": "v1", "kind": "Pod"}
    return {**head, "metadata": {"name": name, "namespace": namespace}, "spec": {"nodeName": "kn1"}}


def replay(kube: KubeServer, *names: str) -> None:
    """Earlier requests of the same recording session."""
    for name in names:
        ask(kube.port, recording(name)[0])


def plain(value: object) -> object:
    """Without numbers and ids, which differ from cluster to cluster."""
    text = json.dumps(value, sort_keys=True)
    text = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "UID", text)
    text = re.sub(r"No Object name found", "", text).replace(': "', '"')
    return re.sub(r"\d+", "N", text)
