"""HTTP/2 without TLS, blocking and small: one request on a tunnel, and a server of one answer."""

from __future__ import annotations

import socket
from collections.abc import Callable

import h2.config
import h2.connection
import h2.events


def ask_h2(
    send: Callable[[bytes], None], receive: Callable[[], bytes], path: str = "/"
) -> tuple[dict[str, str], bytes]:
    """Headers and body of the answer to one GET. EOFError: the connection ended before it."""
    connection = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
    connection.initiate_connection()
    fields = [(":method", "GET"), (":scheme", "http"), (":authority", "reviews"), (":path", path)]
    connection.send_headers(1, fields, end_stream=True)
    send(connection.data_to_send())
    headers: dict[str, str] = {}
    body = b""
    while data := receive():
        for event in connection.receive_data(data):
            match event:
                case h2.events.ResponseReceived() | h2.events.TrailersReceived():
                    headers.update(dict(event.headers))
                case h2.events.DataReceived():
                    body += event.data
                case h2.events.StreamEnded():
                    return headers, body
        send(connection.data_to_send())
    raise EOFError("no answer")


def answer_h2(connection: socket.socket) -> None:
    """Answers each request of a connection with its path, and a trailer as gRPC has it."""
    server = h2.connection.H2Connection(
        h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
    )
    server.initiate_connection()
    connection.sendall(server.data_to_send())
    while data := connection.recv(65_536):
        for event in server.receive_data(data):
            if isinstance(event, h2.events.RequestReceived):
                path = dict(event.headers)[":path"]
                server.send_headers(event.stream_id, [(":status", "200")])
                server.send_data(event.stream_id, path.encode())
                server.send_headers(event.stream_id, [("grpc-status", "0")], end_stream=True)
        connection.sendall(server.data_to_send())
