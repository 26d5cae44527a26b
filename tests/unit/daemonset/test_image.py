"""Parts of the image that need no image: its probe, its bill of materials, its locked packages."""

from __future__ import annotations

import re
import socket
import subprocess
import threading
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from daemonset.tools import render

IMAGE = render.ROOT / "daemonset/image"
PROJECT = tomllib.loads((render.ROOT / "pyproject.toml").read_text())


def probe(folder: Path, answer: bytes | None) -> subprocess.CompletedProcess[str]:
    """Ask a door that gives this answer; None: nobody is there."""
    (folder / "n1").mkdir()
    environment = {"TULLE_RUN_DIR": str(folder), "TULLE_NODE": "n1"}
    command = [str(IMAGE / "tulle-probe"), "agent", "/healthz/ready"]

    def ask() -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=10)

    if answer is None:
        return ask()
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(folder / "n1/agent.sock"))
        door.listen()

        def serve() -> None:
            connection, _ = door.accept()
            with connection:
                assert b"GET /healthz/ready HTTP/1.1\r\n" in connection.recv(4096)
                connection.sendall(answer)

        server = threading.Thread(target=serve)
        server.start()
        done = ask()
        server.join()
        return done


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\nready\n", 0, "ready"),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\nno intents received yet\n", 1, "no intents"),
        (b"", 1, ""),
        (b"200", 1, ""),
        (None, 1, "No such file"),
    ],
)
def test_the_probe_says_what_the_page_says(
    tmp_path: Path, answer: bytes | None, code: int, said: str
) -> None:
    done = probe(tmp_path, answer)
    assert (done.returncode, said in done.stdout) == (code, True), done


def locked(name: str) -> dict[str, str]:
    return dict(re.findall(r"^([\w.-]+)==(\S+)", (IMAGE / name).read_text(), flags=re.MULTILINE))


def test_the_image_has_what_the_project_needs() -> None:
    """After a change of the dependencies: python daemonset/image/lock.py."""
    versions = locked("requirements.txt")
    for each in map(Requirement, PROJECT["project"]["dependencies"]):
        assert each.name in versions
        assert versions[each.name] in each.specifier, each
    build = locked("requirements-build.txt")
    pinned = dict(each.split("==") for each in PROJECT["dependency-groups"]["dev"])
    for name in ("mypy", "setuptools"):
        assert build[name] == pinned[name]


def test_every_locked_package_has_a_hash() -> None:
    for name in ("requirements.txt", "requirements-build.txt"):
        text = (IMAGE / name).read_text()
        for entry in re.split(r"\n(?=[a-z])", text.partition("\n")[2]):
            assert "--hash=sha256:" in entry


def test_one_version_everywhere() -> None:
    chart = yaml.safe_load((render.CHART / "Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == PROJECT["project"]["version"]


def test_the_chart_runs_what_the_image_has() -> None:
    built = (IMAGE / "Containerfile").read_text()
    for template in render.CHART.glob("templates/*.yaml"):
        for command in re.findall(r"command: \[(tulle[\w-]*)", template.read_text()):
            assert re.search(rf"\b{command}\b", built), command
    assert "65532" in built
    assert "65532" in (render.CHART / "templates/control.yaml").read_text()
