"""The CNI plugin as a program, and an agent's door that answers as a test says."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
SOURCES = ROOT / "daemonset" / "cni"
RECORDED = ROOT / "tests" / "vectors" / "kubernetes" / "cni"
BUILD_TIMEOUT_S = 30
RUN_TIMEOUT_S = 20
DEADLINE_MS = 250  # the plugin's patience in tests
FLAGS = ("-std=gnu11", "-Os", "-Wall", "-Wextra", "-Werror")


def compile_plugin(to: Path, *flags: str) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        if os.environ.get("CI") == "true":
            pytest.fail("no C compiler: the CNI plugin cannot be tried")
        pytest.skip("no C compiler")
    sources = sorted(SOURCES.glob("*.c"))
    command = [compiler, *FLAGS, *flags, *map(str, sources), "-o", str(to)]
    subprocess.run(command, check=True, timeout=BUILD_TIMEOUT_S)
    return to


@dataclass(frozen=True, slots=True)
class Printed:
    """A finished call."""

    code: int
    out: bytes

    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def sentence(self) -> str:
        return str(self.json()["msg"])


@dataclass
class Plugin:
    """The program, and the node's files that its configuration names."""

    program: Path
    folder: Path
    exempt: tuple[str, ...] = ()

    @property
    def socket(self) -> Path:
        return self.folder / "cni.sock"

    @property
    def marker(self) -> Path:
        return self.folder / "cni.boot"

    @property
    def namespaces(self) -> Path:
        return self.folder / "namespaces"

    def configured(self, recorded: Mapping[str, Any]) -> dict[str, Any]:
        """A recorded configuration, with our members in place of the recording plugin's."""
        ours = {
            "type": "tulle-cni",
            "socket": str(self.socket),
            "marker": str(self.marker),
            "namespaces": str(self.namespaces),
        }
        if self.exempt:
            ours["exempt"] = list(self.exempt)  # type: ignore[assignment]
        return {**recorded, **ours}

    def replay(self, name: str, **environment: str) -> Printed:
        """The call of a recording, on this node."""
        recorded = json.loads((RECORDED / name).read_text())
        text = json.dumps(self.configured(recorded["stdin"])).encode()
        return self.call(text, {**recorded["environment"], **environment})

    def call(self, stdin: bytes, environment: Mapping[str, str]) -> Printed:
        done = subprocess.run(
            [self.program],
            input=stdin,
            env=dict(environment),
            capture_output=True,
            timeout=RUN_TIMEOUT_S,
        )
        assert done.stderr == b""
        return Printed(done.returncode, done.stdout)

    def knows(self, *lines: str) -> None:
        self.namespaces.write_text("\n".join(["tulle namespaces 1", *lines, "end", ""]))


@dataclass
class Call:
    """A request as the agent's door got it."""

    environment: dict[str, str]
    stdin: bytes


def parsed(body: bytes) -> Call:
    head, _, stdin = body.partition(b"\0\0")
    pairs = (each.decode().partition("=") for each in head.split(b"\0"))
    return Call({name: value for name, _, value in pairs}, stdin)


@dataclass
class ScriptedDoor:
    """Answers each connection with the bytes that `answer` makes of its request."""

    answer: Callable[[int], bytes | None]  # by number; None: keep it waiting
    calls: list[Call] = field(default_factory=list)
    _kept: list[socket.socket] = field(default_factory=list)

    @contextlib.contextmanager
    def at(self, path: Path) -> Iterator[ScriptedDoor]:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen(16)
            thread = threading.Thread(target=self._serve, args=(listener,))
            thread.start()
            try:
                yield self
            finally:
                listener.shutdown(socket.SHUT_RDWR)
                thread.join(RUN_TIMEOUT_S)
                path.unlink()
                for each in self._kept:
                    each.close()

    def _serve(self, listener: socket.socket) -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            sock.settimeout(RUN_TIMEOUT_S)
            self.calls.append(_read(sock))
            answer = self.answer(len(self.calls))
            if answer is None:
                self._kept.append(sock)
                continue
            with sock, contextlib.suppress(OSError):  # it may have gone
                sock.sendall(answer)


def _read(sock: socket.socket) -> Call:
    data = b""
    while b"\r\n\r\n" not in data:
        data += sock.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    wanted = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
    while len(body) < wanted:
        body += sock.recv(65536)
    return parsed(body)


def http(status: int, body: bytes = b"") -> bytes:
    return b"HTTP/1.1 %d \r\nserver: x\r\ncontent-length: %d\r\n\r\n%s" % (status, len(body), body)
