"""A server for pods of the e2e run: HTTP, an echo over TCP, gRPC health; needs the image's Python.

HTTP answers with the client's address as it was seen; the echo keeps its connections open.
"""

from __future__ import annotations

import socket
import socketserver
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

HTTP_PORT, ECHO_PORT, GRPC_PORT, SPARE_PORT = 8080, 8081, 8082, 8083
_SERVING = b"\x08\x01"  # grpc.health.v1.HealthCheckResponse{status: SERVING}


class Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = f"{self.client_address[0].removeprefix('::ffff:')}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nobody reads a line a probe."""


class Http(ThreadingHTTPServer):
    address_family = socket.AF_INET6
    request_queue_size = 1024


class Echo(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        for line in self.rfile:
            self.wfile.write(line)


class EchoServer(socketserver.ThreadingTCPServer):
    address_family = socket.AF_INET6
    allow_reuse_address = True
    daemon_threads = True


def health(port: int) -> Any:
    import grpc  # heavy, and for one kind of probe

    check = grpc.unary_unary_rpc_method_handler(lambda request, context: _SERVING)
    server = grpc.server(ThreadPoolExecutor(4))
    handler = grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": check})
    server.add_generic_rpc_handlers((handler,))
    server.add_insecure_port(f"[::]:{port}")
    server.start()
    return server


def serve(http: int, echo: int, grpc: int, spare: int) -> None:
    servers = [Http(("::", http), Page), Http(("::", spare), Page), EchoServer(("::", echo), Echo)]
    for each in servers:
        threading.Thread(target=each.serve_forever, daemon=True).start()
    kept = health(grpc)
    sys.stdout.write("serving\n")
    sys.stdout.flush()
    kept.wait_for_termination()


if __name__ == "__main__":
    serve(HTTP_PORT, ECHO_PORT, GRPC_PORT, SPARE_PORT)
