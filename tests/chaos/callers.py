"""Traffic under chaos: callers that connect, talk, and write down what was not as it has to be."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time
from dataclasses import dataclass, field

from tests.support.lab.mesh_bed import FAMILIES, MARKER, PORT, Bed

HANG_S = 10.0
PAUSE_S = 0.02
# From a few bytes to more than a stream's window. The echo takes lines of up to a mebibyte.
SIZES = (10, 1_000, 30_000, 400_000)
OUTSIDERS_MARKER = "outsiders-marker"  # for callers outside the mesh: theirs is plain by right


@dataclass(frozen=True)
class Route:
    """A caller and its target. `allowed`: policy lets it in; if not, no answer may come."""

    caller: str
    target: str
    allowed: bool
    lines: int = 1  # at most, in one connection

    def __str__(self) -> str:
        return f"{self.caller} to {self.target}"


@dataclass
class Tally:
    """Outcomes of one caller's lines. `wrong` has a sentence for each that breaks a promise."""

    answered: int = 0
    failed: int = 0
    longest_s: float = 0.0  # a line, or a refused connection
    wrong: list[str] = field(default_factory=list)


class Caller:
    """Connects again and again from a thread until it is told to stop."""

    def __init__(self, bed: Bed, route: Route, seed: str) -> None:
        self.route, self.tally = route, Tally()
        self._bed, self._random = bed, random.Random(f"{seed} {route}")
        self._sources = {family: bed.address(route.caller, family) for family in FAMILIES}
        self._targets = {family: bed.address(route.target, family) for family in FAMILIES}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._marker = OUTSIDERS_MARKER if route.caller == "stranger" else MARKER

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._over.set()

    def join(self) -> None:
        self._thread.join(HANG_S * 3)
        if self._thread.is_alive():
            self._wrong("never came back")

    def _run(self) -> None:
        try:
            while not self._over.wait(PAUSE_S):
                self._connection(self._random.choice(FAMILIES))
        except BaseException as exc:
            self._wrong(repr(exc))
            raise

    def _connection(self, family: int) -> None:
        with contextlib.ExitStack() as stack:
            sock = None
            for _ in range(self._random.randint(1, self.route.lines)):
                began = time.monotonic()
                try:
                    if sock is None:
                        sock = stack.enter_context(self._dial(family))
                    self._line(sock, family, began + HANG_S)
                except TimeoutError:
                    # A refusal ends in a RST, and nothing repeats one that a bad link has lost.
                    if self.route.allowed:
                        self._wrong(f"hung for {time.monotonic() - began:.1f} s")
                    self.tally.failed += 1
                    return
                except OSError:
                    self.tally.failed += 1
                    return
                finally:
                    took_s = time.monotonic() - began
                    self.tally.longest_s = max(self.tally.longest_s, took_s)
                if self._over.wait(PAUSE_S):
                    return

    def _dial(self, family: int) -> socket.socket:
        return self._bed.dial(self.route.caller, self._targets[family], PORT, timeout_s=HANG_S)

    def _line(self, sock: socket.socket, family: int, deadline_s: float) -> None:
        """One line there and back; ConnectionError if it ends early."""
        text = self._marker + self._random.randbytes(self._random.choice(SIZES) // 2).hex()
        line = f"{self._sources[family]} {sock.getsockname()[1]} {text}\n".encode()
        answer = exchange(sock, f"{text}\n".encode(), deadline_s).removeprefix(b"::ffff:")
        if answer and not self.route.allowed:
            self._wrong("was answered")
        if not line.startswith(answer):
            self._wrong(f"got other bytes: {answer[:60]!r}, {len(answer)} instead of {len(line)}")
        if answer != line:
            late = time.monotonic() >= deadline_s
            raise TimeoutError if late else ConnectionError("ended early")
        self.tally.answered += 1

    def _wrong(self, what: str) -> None:
        self.tally.wrong.append(f"{time.strftime('%H:%M:%S')} {self.route}: {what}")


def exchange(sock: socket.socket, data: bytes, deadline_s: float) -> bytes:
    """Send a line; bytes of the answer up to its line feed, its end or the deadline."""
    answer = b""
    try:
        sock.settimeout(max(0.001, deadline_s - time.monotonic()))
        sock.sendall(data)
        while not answer.endswith(b"\n"):
            sock.settimeout(max(0.001, deadline_s - time.monotonic()))
            if not (piece := sock.recv(65536)):
                break
            answer += piece
    except (ConnectionError, TimeoutError):
        pass
    return answer
