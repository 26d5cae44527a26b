"""`tulle-agent`: its flags."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from agent import main
from control.kit.errors import ConfigError


def flags(**changes: Any) -> dict[str, Any]:
    found = {
        "node": "n1",
        "control": "10.0.0.1:15012",
        "control_root": Path("root.pem"),
        "control_name": None,
        "token": None,
        "run_dir": Path("/run/tulle"),
        "zds": None,
        "bpffs": Path("/sys/fs/bpf"),
        "cgroup_root": None,
        "cache": Path("/var/cache"),
        "metrics": "",
        "drain_s": 2.0,
        "direct": True,
        "shortcut": True,
    }
    return {**found, **changes}


def test_defaults_follow_from_the_other_flags() -> None:
    config = main._config(flags(), Path("/cgroup"))
    assert (config.zds, config.control_name) == (Path("/run/tulle/n1/zds.sock"), "10.0.0.1")
    assert config.cgroup_root == Path("/cgroup")
    assert config.direct_socket == Path("/run/tulle/n1/direct.sock")
    chosen = main._config(flags(zds=Path("/z"), control_name="c"), Path("/cgroup"))
    assert (chosen.zds, chosen.control_name) == (Path("/z"), "c")


@pytest.mark.parametrize("node", ["", "a/b", ".."])
def test_a_node_needs_a_name_that_can_be_a_folder(node: str) -> None:
    with pytest.raises(ConfigError, match="--node"):
        main._config(flags(node=node), Path("/cgroup"))


@pytest.mark.parametrize("flag", ["control", "control_root"])
def test_a_missing_flag_is_named(flag: str) -> None:
    with pytest.raises(ConfigError, match=f"--{flag.replace('_', '-')} is missing"):
        main._config(flags(**{flag: None}), Path("/cgroup"))


def test_a_name_of_replicas_without_a_port_is_refused() -> None:
    with pytest.raises(ConfigError, match="--replicas must be HOST:PORT"):
        main._config(flags(replicas="replicas"), Path("/cgroup"))


def test_help_names_the_environment_and_an_example() -> None:
    text = CliRunner().invoke(main.main, ["--help"]).output
    assert "TULLE_AGENT_NODE" in text
    assert "TULLE_NODE" in text
    assert "tulle-agent --node a" in text


def test_a_log_level_that_is_none_is_a_usage_error() -> None:
    words = ["--node", "n1", "--control", "c:1", "--log-level", "loud"]
    done = CliRunner().invoke(main.main, words)
    assert done.exit_code == 2
    assert "--log-level" in done.stderr
    assert "not a log level" in done.stderr


def test_help_and_an_uninstall_need_no_server() -> None:
    code = (
        "import sys, agent.main, agent.uninstall\n"
        "print([m for m in sys.modules if m.startswith(('grpc', 'agent.serve', 'google'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
