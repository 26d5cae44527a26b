"""gRPC's own lines are off before gRPC is loaded, whichever package comes first."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize("package", ["agent", "control", "ztunnel"])
def test_a_package_says_so_before_grpc_is_loaded(package: str) -> None:
    code = f"import os, sys, {package}; print(os.environ['GRPC_VERBOSITY'], 'grpc' in sys.modules)"
    told = {name: value for name, value in os.environ.items() if name != "GRPC_VERBOSITY"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=told, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["NONE", "False"]
    loud = {**told, "GRPC_VERBOSITY": "DEBUG"}
    done = subprocess.run(command, env=loud, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["DEBUG", "False"]
