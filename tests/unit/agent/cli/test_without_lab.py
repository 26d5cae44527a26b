"""An image without `agent/lab`, as a copy of the sources: every other verb works."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import agent
import bpf
import control
from agent.cli.main import VERBS
from tests.unit.agent.cli.mesh_example import example

# Runs in the copy: prints {case: [exit code, output]} as JSON.
WALK = """
import json, pkgutil, sys
# An editable installation would find agent.lab in the sources.
sys.meta_path[:] = [finder for finder in sys.meta_path if "__editable__" not in repr(finder)]
from importlib import import_module
from click.testing import CliRunner
import agent
from agent.cli.main import VERBS, tulle

found = {}
for verb in VERBS:
    found[verb] = CliRunner().invoke(tulle, [verb, "--help"])
found["help"] = CliRunner().invoke(tulle, ["--help"])
found["near"] = CliRunner().invoke(tulle, ["labb"])
found["a saved dump"] = CliRunner().invoke(tulle, ["status", "-f", sys.argv[1]])
for module in pkgutil.walk_packages(agent.__path__, "agent."):
    import_module(module.name)
print(json.dumps({
    "file": agent.__file__,
    "cases": {name: [result.exit_code, result.output] for name, result in found.items()},
}))
"""


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str]]:
    root = tmp_path_factory.mktemp("image")
    for package in (agent, bpf, control):
        source = Path(str(package.__file__)).parent
        ignored = shutil.ignore_patterns("lab", "__pycache__")
        shutil.copytree(source, root / source.name, ignore=ignored)
    dump = root / "dump.json"
    dump.write_text(json.dumps(example().as_json()))
    done = subprocess.run(
        [sys.executable, "-c", WALK, str(dump)],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=True,
    )
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert Path(told["file"]).is_relative_to(root)
    return {name: (code, output) for name, (code, output) in told["cases"].items()}


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "lab"])
def test_every_other_verb_works(walked: dict[str, tuple[int, str]], verb: str) -> None:
    code, output = walked[verb]
    assert code == 0
    assert "Example: " in output


def test_a_verb_reads_a_dump(walked: dict[str, tuple[int, str]]) -> None:
    code, output = walked["a saved dump"]
    assert code == 0
    assert "COMPONENT" in output


def test_the_lab_is_said_to_be_missing(walked: dict[str, tuple[int, str]]) -> None:
    code, output = walked["lab"]
    assert code == 2
    assert "the lab is not installed here" in output


def test_help_and_guesses_do_not_name_it(walked: dict[str, tuple[int, str]]) -> None:
    lines = walked["help"][1].partition("Commands:")[2].splitlines()
    verbs = [line.split()[0] for line in lines if line.strip()]
    assert "status" in verbs
    assert "lab" not in verbs
    assert walked["near"][0] == 2
    assert "Did you mean" not in walked["near"][1]
