"""Parts of the image that need no image: its probe, its bill of materials, its locked packages."""

from __future__ import annotations

import re
import socket
import subprocess
import sysconfig
import threading
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from daemonset.tools import render
from ztunnel.compiled import abi

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


def target(architecture: str, own: str, command: str) -> subprocess.CompletedProcess[str]:
    """A step of the build stage, on a builder of the architecture `own`."""
    said = f'dpkg() {{ echo {own}; }}; set -- "$1"; . "$1" && {command}'
    return subprocess.run(
        ["sh", "-c", said, "sh", str(IMAGE / "target")],
        env={"PATH": "/usr/bin:/bin", "TARGETARCH": architecture},
        capture_output=True, text=True, timeout=10,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("architecture", "own", "compiler", "package"),
    [
        ("amd64", "amd64", "musl-gcc", "python3-dev"),
        ("arm64", "arm64", "musl-gcc", "python3-dev"),
        ("arm64", "amd64", "aarch64-linux-gnu-gcc -specs", "libpython3-dev:arm64"),
        ("amd64", "arm64", "x86_64-linux-gnu-gcc -specs", "gcc-x86-64-linux-gnu"),
    ],
)
def test_the_build_stage_compiles_for_the_images_architecture(
    architecture: str, own: str, compiler: str, package: str
) -> None:
    done = target(architecture, own, 'echo "$triplet|$static_cc|$packages"')
    triplet, static_cc, packages = done.stdout.strip().split("|")
    machine = {"amd64": "x86_64", "arm64": "aarch64"}[architecture]
    assert triplet == f"{machine}-linux-gnu"
    assert static_cc.startswith(compiler)
    assert package in packages.split()
    variables = "_PYTHON_SYSCONFIGDATA_NAME|_PYTHON_HOST_PLATFORM"
    said = target(architecture, own, f"for_target env | grep -E '^({variables})='").stdout
    assert f"_sysconfigdata__{triplet}\n" in said
    assert f"linux-{machine}\n" in said


def test_an_architecture_that_nobody_builds_is_refused() -> None:
    done = target("riscv64", "amd64", "echo on")
    assert (done.returncode, done.stdout) == (2, "")


def test_what_is_compiled_elsewhere_is_marked_as_python_would_mark_it_here() -> None:
    """`.ci/compile.py` writes the suffix of the Python compiled for: a native one is this one's."""
    assert sysconfig.get_config_var("EXT_SUFFIX") == abi()


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
