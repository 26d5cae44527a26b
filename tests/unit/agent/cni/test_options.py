"""The flags, and `tulle-agent cni` without an agent and without a control plane."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from agent import main
from agent.cni.options import take
from agent.config import CniConfig
from control.kit import lock


def test_without_the_flag_there_is_no_plugin_and_no_flag_is_left() -> None:
    flags = {"node": "n1", "is_cni": False, "cni_conf_dir": Path("/x"), "cni_exempt": "a,,b"}
    assert take(flags) is None
    assert flags == {"node": "n1"}
    assert take({"is_cni": True, "cni_exempt": "a,,b"}) == CniConfig(exempt=("a", "b"))
    assert take({"kubernetes": True}) is None
    assert take({"kubernetes": True}, is_uninstall=True) == CniConfig()
    assert take({}, is_uninstall=True) is None


@pytest.fixture
def host(tmp_path: Path) -> Path:
    for name in ("etc/cni/net.d", "opt/cni/bin", "state/n1"):
        (tmp_path / name).mkdir(parents=True)
    for name in (
        "etc/cni/net.d/00-tulle.conflist",
        "etc/cni/net.d/10-a.conflist",
        "opt/cni/bin/tulle-cni",
        "state/n1/namespaces",
    ):
        (tmp_path / name).touch()
    return tmp_path


def typed(host: Path, *words: str) -> Result:
    flags = ["--node=n1", f"--run-dir={host}/run", f"--cni-host-prefix={host}"]
    return CliRunner().invoke(main.main, [*flags, f"--cni-state-dir={host}/state", *words])


def test_uninstalling_needs_no_agent(host: Path) -> None:
    done = typed(host, "cni", "uninstall")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["configurations"] == ["00-tulle.conflist"]
    left = sorted(str(path.relative_to(host)) for path in host.rglob("*") if path.is_file())
    assert left == ["etc/cni/net.d/10-a.conflist"]
    assert typed(host, "cni", "uninstall").exit_code == 0, "it can be repeated"


@pytest.mark.parametrize("verb", ["install", "status"])
def test_the_other_verbs_say_that_no_agent_runs(host: Path, verb: str) -> None:
    done = typed(host, "cni", verb)
    assert done.exit_code == 1
    assert "is it running?" in done.stderr


def test_the_whole_agents_uninstaller_takes_these_files_along(host: Path) -> None:
    done = typed(host, "--cni", f"--bpffs={host}/bpf", f"--cgroup-root={host}/cg", "--uninstall")
    assert done.exit_code == 0, done.output
    assert not (host / "etc/cni/net.d/00-tulle.conflist").exists()
    assert not (host / "opt/cni/bin/tulle-cni").exists()


def test_it_leaves_them_to_an_agent_of_the_hosts_other_name(host: Path) -> None:
    with lock.held(host / "run" / "renamed" / "agent.lock", "a test"):
        done = typed(
            host, "--cni", f"--bpffs={host}/bpf", f"--cgroup-root={host}/cg", "--uninstall"
        )
    assert done.exit_code == 0, done.output
    assert (host / "etc/cni/net.d/00-tulle.conflist").exists()
    assert (host / "opt/cni/bin/tulle-cni").exists()
