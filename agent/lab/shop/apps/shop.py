"""Stand-in for the bookinfo services: `shop.py ROLE PORT [name=host:port ...]`.

Standard library only. Each answers with JSON: the marker (a capture looks for it in the clear), the
client address that it saw, and the answers of its own backends.
"""

import itertools
import json
import os
import socket
import sys
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ROLE, PORT = sys.argv[1], int(sys.argv[2])
BACKENDS = dict(pair.split("=", 1) for pair in sys.argv[3:])
MARKER = os.environ.get("SHOP_MARKER", "no-marker")
TIMEOUT_S = 5.0
SLOW_S = 3.0
STARTED_PID = os.getpid()
TRIES = itertools.count()  # each second one fails

FACTS: dict[str, dict[str, object]] = {
    "details": {"author": "W. Shakespeare", "year": 1595, "pages": 200},
    "ratings": {"reviewer1": 5, "reviewer2": 4},
    "reviews": {"text": "An extremely entertaining play"},
}


class Dual(ThreadingHTTPServer):
    """One socket for IPv4 and IPv6; clients of the first show up v4-mapped."""

    address_family = socket.AF_INET6
    daemon_threads = True
    request_queue_size = 512

    def server_bind(self) -> None:
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()


def ask(host_port: str) -> object:
    request = urllib.request.Request(f"http://{host_port}/", headers={"x-marker": MARKER})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            return json.load(answer)
    except (OSError, ValueError) as exc:
        return {"error": str(exc)}


class ShopHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        client = self.client_address[0].removeprefix("::ffff:")
        if self.path == "/bulk":
            self.bulk()
            return
        if self.path == "/slow":
            time.sleep(SLOW_S)
        if self.path == "/flaky" and next(TRIES) % 2 == 0:
            self.send_error(503)
            return
        body = {
            "service": ROLE,
            "version": os.environ.get("SHOP_VERSION", "v1"),
            "pid": STARTED_PID,
            "client": client,
            "marker": MARKER,
            **FACTS.get(ROLE.split("-")[0], {}),
            **{name: ask(where) for name, where in BACKENDS.items()},
        }
        failed = any(isinstance(part, dict) and "error" in part for part in body.values())
        data = json.dumps(body).encode() + b"\n"
        self.send_response(502 if failed else 200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def bulk(self) -> None:
        """At least 4 s of 64 KiB pieces at a steady pace, to rotate certificates under."""
        pieces, piece = 400, (MARKER.encode() * 4096)[:65536]
        self.send_response(200)
        self.send_header("content-length", str(pieces * len(piece)))
        self.end_headers()
        for _ in range(pieces):
            self.wfile.write(piece)
            time.sleep(0.01)

    def log_message(self, format: str, *args: object) -> None:
        client = self.client_address[0].removeprefix("::ffff:")
        print(f"{client} {format % args}", flush=True)


print(f"{ROLE} listens on {PORT}", flush=True)
Dual(("::", PORT), ShopHandler).serve_forever()
