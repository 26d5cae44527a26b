"""The scripts that the e2e run puts into pods, with each other and with grpcio's own client."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

PODS = Path(__file__).parents[1] / "e2e" / "pods"
DEADLINE_S = 20.0


def free_ports(count: int) -> list[int]:
    held = [socket.create_server(("::", 0), family=socket.AF_INET6) for _ in range(count)]
    ports: list[int] = [each.getsockname()[1] for each in held]
    for each in held:
        each.close()
    return ports


@pytest.fixture(scope="module")
def ports() -> Iterator[list[int]]:
    """HTTP, echo, gRPC and the spare one, of a server that runs."""
    found = free_ports(4)
    code = f"import server; server.serve(*{found})"
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=PODS, stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == "serving\n"
            yield found
        finally:
            server.kill()


def get(*targets: str, **environment: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, PODS / "get.py", *targets],
        env={**os.environ, **environment}, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_a_page_says_who_asked_in_both_families(ports: list[int], host: str) -> None:
    for port in (ports[0], ports[3]):
        url = f"http://{host}:{port}/"
        assert get(url) == (0, f"{url} {host.strip('[]')}\n")


def test_a_refusal_is_told_from_a_name_that_is_not_there(ports: list[int]) -> None:
    (closed,) = free_ports(1)
    code, said = get(f"http://127.0.0.1:{closed}/", "http://absent.invalid/")
    assert code == 1
    refused, unresolved = said.splitlines()
    assert " refused: " in refused
    assert " unresolved: " in unresolved


def test_a_service_is_found_by_the_pods_own_environment() -> None:
    _, said = get("service:server", SERVER_SERVICE_HOST="::1")
    assert said.startswith("http://[::1]/ refused")


def test_the_health_service_answers_as_the_kubelet_asks(ports: list[int]) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{ports[2]}") as channel:
        check: Any = channel.unary_unary("/grpc.health.v1.Health/Check")
        assert check(b"", timeout=DEADLINE_S) == b"\x08\x01"


def test_a_caller_counts_what_is_answered_and_what_breaks(ports: list[int], tmp_path: Path) -> None:
    counts = tmp_path / "counts.json"
    code = (
        "import caller, pathlib; "
        f"caller.run('127.0.0.1', {ports[0]}, {ports[1]}, pathlib.Path({str(counts)!r}))"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=PODS) as calling:
        try:
            end_s = time.monotonic() + DEADLINE_S
            found: dict[str, Any] = {}
            while not (found.get("answered", 0) > 5 and found.get("echoed", 0) > 5):
                assert time.monotonic() < end_s, found
                time.sleep(0.05)
                if counts.exists():
                    found = json.loads(counts.read_text())
            assert (found["failed"], found["broken"], found["last"]) == (0, 0, "")
        finally:
            calling.kill()
