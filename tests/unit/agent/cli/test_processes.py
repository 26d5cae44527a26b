"""Nodes are folders; processes are asked side by side, and a silent one costs little time."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from agent.cli import processes
from agent.cli.processes import MeshProcess
from control.kit.errors import MeshError
from tests.unit.agent.cli.verbs import run

READERS = (
    *("status", "workloads", "services", "policies", "certificates", "connections", "maps"),
    *("version", "dump", "namespace list", "log level", "log reset"),
)


@pytest.mark.parametrize(
    "mark", ["agent.sock", "ztunnel.sock", "zds.sock", "direct.sock", "agent.lock", "state/"]
)
def test_a_folder_with_anything_of_a_node_is_one(tmp_path: Path, mark: str) -> None:
    path = tmp_path / "n1" / mark
    path.parent.mkdir()
    path.mkdir() if mark.endswith("/") else path.touch()
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "agent-n1.log").touch()
    (tmp_path / "control" / "state").mkdir(parents=True)
    assert processes.nodes(tmp_path) == ["n1"]


def test_a_control_plane_is_a_folder_too(tmp_path: Path) -> None:
    assert processes.control(tmp_path) is None
    (tmp_path / "control").mkdir()
    found = processes.control(tmp_path)
    assert found == MeshProcess("control", "", tmp_path / "control" / "admin.sock")
    assert found.name == "control"
    assert processes.of_node(tmp_path, "agent", "n1").name == "agent-n1"
    assert processes.nodes(tmp_path / "absent") == []


def dead_mesh(folder: Path) -> Path:
    """Two nodes and a control plane whose processes took their sockets along."""
    for node in ("n1", "n2"):
        (folder / node / "state").mkdir(parents=True)
    (folder / "control").mkdir()
    return folder


@pytest.fixture
def frozen_mesh(tmp_path: Path) -> Iterator[Path]:
    """The same, all stopped: the kernel accepts connections, and nobody answers."""
    with ExitStack() as stack:
        for path in ("n1/agent", "n1/ztunnel", "n2/agent", "n2/ztunnel", "control/admin"):
            where = dead_mesh(tmp_path) if not (tmp_path / "n1").exists() else tmp_path
            sock = stack.enter_context(socket.socket(socket.AF_UNIX))
            sock.bind(str(where / f"{path}.sock"))
            sock.listen(64)
        yield tmp_path


@pytest.fixture(scope="module")
def foreign_mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The same, with something else listening: each of its answers is another kind of JSON."""
    folder = dead_mesh(tmp_path_factory.mktemp("foreign"))
    answers = {
        "n1/agent": b"7",
        "n1/ztunnel": b"null",
        "n2/agent": b'{"pods": 7, "maps": {"a": 1}}',
        "n2/ztunnel": b"",  # 404
        "control/admin": b'"x"',
    }
    stop = threading.Event()

    def serve(sock: socket.socket, body: bytes) -> None:
        while not stop.is_set():
            with suppress(OSError), sock.accept()[0] as client:
                client.recv(65536)
                status = b"200 OK" if body else b"404 Not Found"
                head = b"HTTP/1.1 %b\r\ncontent-length: %d\r\n\r\n" % (status, len(body))
                client.sendall(head + body)

    with ExitStack() as stack:
        for path, body in answers.items():
            sock = stack.enter_context(socket.socket(socket.AF_UNIX))
            sock.bind(str(folder / f"{path}.sock"))
            sock.listen(64)
            sock.settimeout(0.05)
            thread = threading.Thread(target=serve, args=(sock, body))
            thread.start()
            stack.callback(thread.join)
        stack.callback(stop.set)
        yield folder


@pytest.mark.parametrize("verb", [*READERS[:10], "top", "log level", "check"])
def test_an_answer_of_another_kind_is_no_answer_and_no_traceback(
    foreign_mesh: Path, verb: str
) -> None:
    result = run("--run-dir", str(foreign_mesh), *verb.split())
    assert result.exit_code != 0
    assert isinstance(result.exception, SystemExit | MeshError | type(None)), result.exception
    assert "√" not in result.stdout
    told = result.output + str(result.exception)
    assert re.search(r"not an answer of this version|no page that is asked for", told)


@pytest.mark.parametrize("verb", READERS)
def test_no_verb_is_content_with_a_dead_mesh(tmp_path: Path, verb: str) -> None:
    result = run("--run-dir", str(dead_mesh(tmp_path)), *verb.split())
    told = result.stderr + str(result.exception)
    assert result.exit_code != 0
    for node in ("n1", "n2"):
        assert f"agent-{node}" in told or f"ztunnel-{node}" in told


def test_check_ticks_nothing_in_a_dead_mesh(tmp_path: Path) -> None:
    result = run("--run-dir", str(dead_mesh(tmp_path)), "check")
    assert result.exit_code == 1
    assert "√" not in result.stdout
    assert "agent (n1)" in result.stdout


@pytest.mark.parametrize("verb", [*READERS, "check"])
def test_stopped_processes_are_waited_for_together(frozen_mesh: Path, verb: str) -> None:
    started = time.monotonic()
    result = run("--run-dir", str(frozen_mesh), *verb.split(), "--timeout", "200ms")
    assert result.exit_code != 0
    assert time.monotonic() - started < 1.0, "five processes, 0.2 s each"
    assert "√" not in result.stdout
    assert "no answer in time" in result.output + str(result.exception)
