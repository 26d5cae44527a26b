"""One HBONE tunnel with one stream, blocking: a client that may ask for any authority."""

from __future__ import annotations

import json
import socket
import ssl
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h2.config
import h2.connection
import h2.events

from ztunnel.transport.tls import Material

DEADLINE_S = 10.0


def client_context(material: Material) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.load_verify_locations(cadata=material.roots_pem.decode())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "client.pem"
        path.write_bytes(material.key_pem + b"".join(material.chain_pem))
        context.load_cert_chain(path)
    context.set_alpn_protocols(["h2"])
    return context


class TunnelClient:
    """`status` is what CONNECT was answered; 0: the stream was reset or the connection ended."""

    def __init__(
        self,
        where: tuple[str, int],
        context: ssl.SSLContext,
        authority: str,
        headers: Mapping[str, str] | None = None,
        method: str = "CONNECT",
    ) -> None:
        self.status = 0
        self.is_over = False
        self._received = bytearray()
        self._socket = context.wrap_socket(socket.create_connection(where, timeout=DEADLINE_S))
        self._h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(
                header_encoding="utf-8",
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
            )
        )
        self._h2.initiate_connection()
        fields = [(":method", method), (":authority", authority)]
        if method != "CONNECT":
            fields += [(":scheme", "http"), (":path", "/")]
        self._h2.send_headers(
            1, [*fields, *(headers or {}).items()], end_stream=method != "CONNECT"
        )
        self._flush()
        while not self.status and not self.is_over:
            self._turn()

    def _flush(self) -> None:
        self._socket.sendall(self._h2.data_to_send())

    def _turn(self) -> None:
        try:
            data = self._socket.recv(65_536)
        except ConnectionResetError:
            data = b""
        if not data:
            self.is_over = True
            return
        for event in self._h2.receive_data(data):
            match event:
                case h2.events.ResponseReceived():
                    self.status = int(dict(event.headers)[":status"])
                case h2.events.DataReceived():
                    self._h2.acknowledge_received_data(event.flow_controlled_length, 1)
                    self._received += event.data
                case h2.events.StreamEnded() | h2.events.StreamReset():
                    self.is_over = True
                case h2.events.ConnectionTerminated():
                    self.is_over = True
        self._flush()

    def send(self, data: bytes) -> None:
        self._h2.send_data(1, data)
        self._flush()

    def read_line(self) -> bytes:
        while b"\n" not in self._received and not self.is_over:
            self._turn()
        line, mark, rest = bytes(self._received).partition(b"\n")
        self._received = bytearray(rest)
        return line + mark

    def read(self, count: int) -> bytes:
        """Fewer at the end of the stream."""
        while len(self._received) < count and not self.is_over:
            self._turn()
        found = bytes(self._received[:count])
        del self._received[:count]
        return found

    def receive(self) -> bytes:
        """The next bytes; empty at the end of the stream."""
        while not self._received and not self.is_over:
            self._turn()
        return self.read(len(self._received))

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> TunnelClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def seen(self) -> dict[str, Any]:
        """The request as the application got it, as it says itself."""
        found: dict[str, Any] = json.loads(self.body)
        return found

    @property
    def who(self) -> str:
        return str(self.seen["who"]) if self.status == 200 else ""


def ask(
    tunnel: TunnelClient,
    path: str = "/",
    method: str = "GET",
    host: str = "reviews",
    headers: Mapping[str, str] | tuple[tuple[str, str], ...] = (),
) -> Answer:
    """One HTTP/1.1 request on a tunnel that stays open."""
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    more = "".join(f"{name}: {value}\r\n" for name, value in pairs)
    tunnel.send(f"{method} {path} HTTP/1.1\r\nhost: {host}\r\n{more}\r\n".encode())
    line = tunnel.read_line().split(None, 2)
    if len(line) < 2:
        raise EOFError("the tunnel ended")
    found: dict[str, str] = {}
    while line_ := tunnel.read_line().strip():
        name, _, value = line_.decode().partition(":")
        name, value = name.lower(), value.strip()
        found[name] = f"{found[name]}, {value}" if name in found else value
    return Answer(int(line[1]), found, _body(tunnel, found, method))


def _body(tunnel: TunnelClient, headers: dict[str, str], method: str) -> bytes:
    if method == "HEAD":
        return b""
    if headers.get("transfer-encoding") != "chunked":
        return tunnel.read(int(headers.get("content-length", "0")))
    body = b""
    while count := int(tunnel.read_line(), 16):
        body += tunnel.read(count)
        tunnel.read_line()
    tunnel.read_line()
    return body
