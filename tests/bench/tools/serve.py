"""The servers of a benchmark pod: nginx (1 KiB answers), iperf3, and an echo of its own.

    serve.py FOLDER HTTP_PORT BULK_PORT ECHO_PORT

Standard library only. Ends with its children killed by whoever started it (they share a cgroup).
"""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
from pathlib import Path

BODY_BYTES = 1024
READ_BYTES = 65536
BACKLOG = 4096
NGINX = """\
daemon off;
master_process off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    tcp_nodelay on;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen [::]:{port} ipv6only=off backlog={backlog};
        location / {{ return 200 "{body}"; }}
    }}
}}
"""


def echo(port: int) -> None:
    """One epoll loop; answers what it reads. Answers are far smaller than a socket's buffer."""
    listener = socket.create_server(
        ("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=BACKLOG
    )
    listener.setblocking(False)
    poll = select.epoll()
    poll.register(listener, select.EPOLLIN)
    open_sockets: dict[int, socket.socket] = {}
    while True:
        for number, _ in poll.poll():
            if number == listener.fileno():
                accepted, _ = listener.accept()
                accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                open_sockets[accepted.fileno()] = accepted
                poll.register(accepted, select.EPOLLIN)
                continue
            try:
                data = open_sockets[number].recv(READ_BYTES)
                if data:
                    open_sockets[number].sendall(data)
                    continue
            except ConnectionError:
                pass
            poll.unregister(number)
            open_sockets.pop(number).close()


def main() -> None:
    folder = Path(sys.argv[1])
    http_port, bulk_port, echo_port = map(int, sys.argv[2:5])
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "nginx.conf"
    body = "x" * BODY_BYTES
    config.write_text(NGINX.format(folder=folder, port=http_port, body=body, backlog=BACKLOG))
    children = (
        ["nginx", "-c", str(config), "-e", "stderr"],
        ["iperf3", "-s", "-p", str(bulk_port)],
    )
    for command in children:
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    os.setpriority(os.PRIO_PROCESS, 0, -20)  # probes measure the way here, not our turn to run
    echo(echo_port)


if __name__ == "__main__":
    main()
