"""Builds bpf/*.h with the ordinary C compiler: C and Python are compared without root."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

import bpf

HEADERS = Path(bpf.__file__).parent
BUILD_TIMEOUT_S = 30


def build(folder: Path, name: str, source: str, *flags: str) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        if os.environ.get("CI") == "true":
            pytest.fail("no C compiler: C and Python cannot be compared")
        pytest.skip("no C compiler")
    (folder / f"{name}.c").write_text(source)
    command = [compiler, "-Wall", "-Werror", "-O1", f"-I{HEADERS}", *flags]
    command += [str(folder / f"{name}.c"), "-o", str(folder / name)]
    subprocess.run(command, check=True, timeout=BUILD_TIMEOUT_S)
    return folder / name
