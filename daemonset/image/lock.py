"""Lock the Python packages of the image, with the hashes of both architectures' wheels.

    python daemonset/image/lock.py

It writes requirements.txt (all that runs) and requirements-build.txt (the compiler of the hot
modules). Nothing is installed.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PROJECT = HERE.parents[1] / "pyproject.toml"
PYTHON = "3.11"  # Debian 12's
ARCHITECTURES = ("x86_64", "aarch64")
GLIBC_MAX = 36  # Debian 12 has 2.36
BUILD = ("mypy", "setuptools", "types-PyYAML", "types-protobuf", "types-psutil", "grpc-stubs")
HEAD = "# Made by daemonset/image/lock.py.\n"


def platform_flags(architecture: str) -> list[str]:
    """What Debian 12 takes: pip must be told each of the names."""
    names = [f"manylinux_2_{minor}_{architecture}" for minor in range(GLIBC_MAX, 4, -1)]
    names += [f"manylinux2014_{architecture}"]
    return [flag for name in names for flag in ("--platform", name)]


def resolved(wanted: list[str], architecture: str) -> dict[str, tuple[str, str]]:
    """Name -> version and hash, as pip would install them."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
    command += ["--report", "-", "--only-binary", ":all:", "--python-version", PYTHON]
    command += [*platform_flags(architecture), "--target", "/nonexistent", *wanted]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    report: dict[str, Any] = json.loads(done.stdout)
    return {
        each["metadata"]["name"].lower().replace("_", "-"): (
            each["metadata"]["version"],
            each["download_info"]["archive_info"]["hashes"]["sha256"],
        )
        for each in report["install"]
    }


def locked(wanted: list[str]) -> str:
    found = [resolved(wanted, architecture) for architecture in ARCHITECTURES]
    lines = []
    for name in sorted(set().union(*found)):
        versions = {each[name][0] for each in found if name in each}
        assert len(versions) == 1, f"{name}: {versions}"
        hashes = sorted({each[name][1] for each in found if name in each})
        parts = [f"{name}=={versions.pop()}", *(f"--hash=sha256:{each}" for each in hashes)]
        lines.append(" \\\n    ".join(parts) + "\n")
    return HEAD + "".join(lines)


def main() -> None:
    project = tomllib.loads(PROJECT.read_text())
    dev = project["dependency-groups"]["dev"]
    build = [each for each in dev if each.partition("==")[0] in BUILD]
    (HERE / "requirements.txt").write_text(locked(project["project"]["dependencies"]))
    (HERE / "requirements-build.txt").write_text(locked(build))


if __name__ == "__main__":
    main()
