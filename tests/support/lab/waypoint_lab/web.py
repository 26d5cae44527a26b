"""HTTP that says who answers and what it was told, and a greeting before the client speaks:
`web.py NAME HTTP_PORT GREETING_PORT`, both families, standard library only."""

import json
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

NAME, HTTP, GREETING = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1

    def do_GET(self):
        headers = {name.lower(): value for name, value in self.headers.items()}
        time.sleep(float(headers.get("x-wait", "0")))
        peer = self.client_address[0].removeprefix("::ffff:")
        body = json.dumps({"who": NAME, "path": self.path, "peer": peer, "headers": headers})
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    address_family = socket.AF_INET6
    daemon_threads = True
    request_queue_size = 128


def greet(sock):
    with sock:
        sock.sendall(f"hello from {NAME}\n".encode())
        while data := sock.recv(65536):
            sock.sendall(data)


def greetings():
    server = socket.create_server(("::", GREETING), family=socket.AF_INET6, dualstack_ipv6=True)
    while True:
        threading.Thread(target=greet, args=(server.accept()[0],), daemon=True).start()


server = Server(("::", HTTP), Handler)
threading.Thread(target=greetings, daemon=True).start()
server.serve_forever()
