"""A small real ztunnel stand-in: speaks ZDS, listens in the pods' namespaces, says what it took.

    python -m tests.support.peers.zds_client --socket PATH [--bare] [--refuse UID] [--odd KIND]
                                       [--direct PATH --generation N]

Each accepted connection gets one line (`tunnel outbound 10.0.0.2:80`) and is closed. Standard
output has one JSON object per event, for the test to wait for. `--bare`: as Istio's, on the
well-known ports and without descriptors in the acknowledgement. `--odd`: answers every `add` in
one of the wrong ways of ODD. `--direct`: says hello at direct.sock, then whatever comes on standard
input; what it hears there is told as `{"direct": line}`.
"""

from __future__ import annotations

import argparse
import json
import os
import selectors
import socket
import struct
import sys
import threading
import time
from typing import Any

from agent.datapath.netns import inside
from control.wire import zds_pb2 as pb

KINDS = ("outbound", "plaintext", "hbone")
BARE_PORTS = (15001, 15006, 15008)
RECONNECT_S = 0.1
ODD_COUNTS = {"two": 2, "eight": 8, "too many": 99}
ODD = (*ODD_COUNTS, "pipes", "unix", "udp", "idle", "foreign", "garbage", "huge", "silent")


def say(**fields: Any) -> None:
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


def original_destination(sock: socket.socket) -> str:
    try:
        raw = sock.getsockopt(socket.SOL_IP, 80, 16)
        port, packed = struct.unpack("!2xH4s8x", raw)
        return f"{socket.inet_ntop(socket.AF_INET, packed)}:{port}"
    except OSError:
        raw = sock.getsockopt(socket.IPPROTO_IPV6, 80, 28)
        port, packed = struct.unpack("!2xH4x16s4x", raw)
        return f"[{socket.inet_ntop(socket.AF_INET6, packed)}]:{port}"


def odd_sockets(kind: str, netns_fd: int) -> list[socket.socket]:
    """Three descriptors that are not three TCP listeners of that namespace."""
    if kind == "foreign":
        return [socket.create_server(("127.0.0.1", 0)) for _ in KINDS]
    with inside(netns_fd):
        if kind == "unix":
            return [*socket.socketpair(), socket.socket(socket.AF_UNIX)]
        if kind == "udp":
            return [socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) for _ in KINDS]
        return [socket.socket(socket.AF_INET6) for _ in KINDS]


class Client:
    def __init__(self, path: str, bare: bool, refuse: str | None, odd: str | None = None) -> None:
        self.odd = odd
        self.bare = bare
        self.refuse = refuse
        self.path = path
        self.pods: dict[str, tuple[int, list[socket.socket]]] = {}
        self.selector = selectors.DefaultSelector()
        self.sock: socket.socket | None = None

    def connect(self) -> None:
        """The agent may be away: its pods are served all the same, and it is tried again."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            sock.connect(self.path)
            sock.send(pb.ZdsHello(version=pb.V1).SerializeToString())
        except OSError:  # also an agent that ends while we wait to be accepted
            sock.close()
            return
        self.selector.register(sock, selectors.EVENT_READ, None)
        self.sock = sock

    def run(self) -> None:
        while True:
            if self.sock is None:
                self.connect()
            for key, _ in self.selector.select(RECONNECT_S if self.sock is None else None):
                if key.data is not None:
                    self.accept(key.fileobj, key.data)  # type: ignore[arg-type] # all are sockets
                elif self.sock is not None and not self.answered(self.sock):
                    self.selector.unregister(self.sock)
                    self.sock.close()
                    self.sock = None

    def answered(self, sock: socket.socket) -> bool:
        try:
            return self.request(sock)
        except OSError:
            return False  # the agent died in the middle of it

    def request(self, sock: socket.socket) -> bool:
        data, fds, _, _ = socket.recv_fds(sock, 1024, 1)
        if not data:
            return False
        message = pb.WorkloadRequest.FromString(data)
        if self.odd is not None and message.HasField("add"):
            self.answer_oddly(sock, self.odd, message.add.uid, fds[0])
            os.close(fds[0])
            return True
        answer: list[socket.socket] = []
        error = ""
        match message.WhichOneof("payload"):
            case "add" if message.add.uid == self.refuse:
                error = "refused by the test"
            case "add":
                answer = self.add(message.add.uid, fds[0])
                info = message.add.workload_info
                account = info.service_account
                say(added=message.add.uid, pod=f"{info.namespace}/{info.name}", account=account)
            case "del":
                self.delete(getattr(message, "del").uid)
            case "keep":
                say(kept=message.keep.uid)
            case "snapshot_sent":
                say(snapshot_sent=True)
        for fd in fds:
            os.close(fd)
        response = pb.WorkloadResponse(ack=pb.Ack(error=error)).SerializeToString()
        socket.send_fds(sock, [response], [each.fileno() for each in answer])
        return True

    def answer_oddly(self, sock: socket.socket, kind: str, uid: str, netns_fd: int) -> None:
        ack = pb.WorkloadResponse(ack=pb.Ack()).SerializeToString()
        say(odd=kind)
        match kind:
            case "silent":
                pass
            case "garbage":
                sock.send(os.urandom(200))
            case "huge":
                sock.send(ack + bytes(100_000))
            case "two" | "eight" | "too many":
                good = [each.fileno() for each in self.add(uid, netns_fd)]
                socket.send_fds(sock, [ack], (good * 33)[: ODD_COUNTS[kind]])
            case "pipes":
                read, write = os.pipe()
                socket.send_fds(sock, [ack], [read, write, write])
                os.close(read)
                os.close(write)
            case _:
                wrong = odd_sockets(kind, netns_fd)
                socket.send_fds(sock, [ack], [each.fileno() for each in wrong])
                for each in wrong:
                    each.close()

    def add(self, uid: str, netns_fd: int) -> list[socket.socket]:
        inode = os.fstat(netns_fd).st_ino
        if uid in self.pods and self.pods[uid][0] == inode:
            return [] if self.bare else self.pods[uid][1]
        self.delete(uid)
        listeners = []
        with inside(netns_fd):
            for kind, port in zip(KINDS, BARE_PORTS, strict=True):
                listener = socket.socket(socket.AF_INET6)
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                listener.bind(("::", port if self.bare or kind == "hbone" else 0))
                listener.listen(64)
                self.selector.register(listener, selectors.EVENT_READ, kind)
                listeners.append(listener)
        self.pods[uid] = (inode, listeners)
        return [] if self.bare else listeners

    def delete(self, uid: str) -> None:
        for listener in self.pods.pop(uid, (0, []))[1]:
            self.selector.unregister(listener)
            listener.close()
        say(deleted=uid)

    def accept(self, listener: socket.socket, kind: str) -> None:
        accepted, _ = listener.accept()
        with accepted:
            try:
                if kind == "outbound":
                    where = original_destination(accepted)
                else:
                    host, port = accepted.getsockname()[:2]
                    where = f"{host.removeprefix('::ffff:')}:{port}"
            except OSError as exc:
                where = f"unknown ({exc})"
            accepted.send(f"tunnel {kind} {where}\n".encode())
            accepted.shutdown(socket.SHUT_WR)


class DirectTalk:
    """The other socket, in threads of its own."""

    def __init__(self, path: str, generation: int) -> None:
        self._path = path
        self._generation = generation
        self._sock: socket.socket | None = None

    def start(self) -> None:
        for job in (self._listen, self._speak):
            threading.Thread(target=job, daemon=True).start()

    def _listen(self) -> None:
        while True:
            sock = socket.socket(socket.AF_UNIX)
            try:
                sock.connect(self._path)
            except OSError:
                sock.close()
                time.sleep(RECONNECT_S)
                continue
            try:
                self._talk(sock)
            except OSError:
                pass  # an agent that died with our words unread
            say(direct={"kind": "end"})

    def _talk(self, sock: socket.socket) -> None:
        with sock, sock.makefile("rb") as lines:
            hello = {"kind": "hello", "version": 1, "pid": os.getpid()}
            sock.sendall(json.dumps({**hello, "generation": self._generation}).encode() + b"\n")
            self._sock = sock
            for line in lines:
                say(direct=json.loads(line))

    def _speak(self) -> None:
        for line in sys.stdin:
            try:
                if self._sock is not None:
                    self._sock.sendall(line.encode())
            except OSError:
                pass  # the agent is away


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--socket", required=True)
    parser.add_argument("--bare", action="store_true")
    parser.add_argument("--refuse")
    parser.add_argument("--odd", choices=ODD)
    parser.add_argument("--direct")
    parser.add_argument("--generation", type=int, default=1)
    options = parser.parse_args()
    if options.direct:
        DirectTalk(options.direct, options.generation).start()
    Client(options.socket, options.bare, options.refuse, options.odd).run()


if __name__ == "__main__":
    main()
