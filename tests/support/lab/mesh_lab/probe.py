"""`probe.py LINE "ADDRESS PORT"...`: four connections at a time, each says the line and reads the
answer, until SIGTERM; then every try as JSON. Standard library only."""

import errno
import json
import selectors
import signal
import socket
import sys
import time

PARALLEL = 4
TRY_S = 4.0
ENDED = {errno.ECONNRESET: "closed", errno.ECONNABORTED: "cut"}  # before we could say a word


class Try:
    def __init__(self, selector, number, target, line):
        self.selector, self.number, self.line = selector, number, line
        self.heard, self.said, self.port = b"", False, 0
        self.sock = socket.socket(socket.AF_INET6 if ":" in target[0] else socket.AF_INET)
        self.sock.setblocking(False)
        self.started_s = time.monotonic()
        self.sock.connect_ex(target)
        selector.register(self.sock, selectors.EVENT_WRITE, self)

    def ready(self):
        """Its outcome, or None while it lasts."""
        try:
            if not self.said:
                error = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if error:
                    return ENDED.get(error, f"unreached: errno {error}")
                self.said, self.port = True, self.sock.getsockname()[1]
                self.sock.send(self.line)
                self.selector.modify(self.sock, selectors.EVENT_READ, self)
                return None
            data = self.sock.recv(4096)
            self.heard += data
            if self.heard.endswith(b"\n"):
                return "answered"
            return None if data else "closed"
        except BlockingIOError:
            return None
        except ConnectionAbortedError:
            return "cut"
        except ConnectionError:
            return "closed"

    def end(self, outcome):
        self.selector.unregister(self.sock)
        self.sock.close()
        return self.started_s, time.monotonic(), outcome, self.port, self.number


def main():
    line = f"{sys.argv[1]}\n".encode()
    targets = [(word.split()[0], int(word.split()[1])) for word in sys.argv[2:]]
    going = []
    signal.signal(signal.SIGTERM, lambda *_: going.append(False))
    selector = selectors.DefaultSelector()
    done, live, turn = [], set(), 0
    while not going:
        while len(live) < PARALLEL:
            live.add(Try(selector, turn % len(targets), targets[turn % len(targets)], line))
            turn += 1
        for key, _ in selector.select(0.1):
            outcome = key.data.ready()
            if outcome is not None:
                live.discard(key.data)
                done.append(key.data.end(outcome))
        limit_s = time.monotonic() - TRY_S
        for each in [one for one in live if one.started_s < limit_s]:
            live.discard(each)
            done.append(each.end("late"))
    json.dump(done, sys.stdout)


main()
