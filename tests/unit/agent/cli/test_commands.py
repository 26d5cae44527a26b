"""The verbs from the outside: help, exit codes, streams, dumps."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from click.testing import CliRunner, Result

from agent.cli import check, namespace
from agent.cli.log import rows as log_rows
from agent.cli.main import VERBS, tulle
from agent.cli.mesh import load_dump
from agent.cli.redact import redact
from control.kit.errors import ConfigError, MeshError
from tests.unit.agent.cli.mesh_example import example, ztunnel


def run(*words: str) -> Result:
    return CliRunner().invoke(tulle, list(words))


@pytest.fixture
def dump(tmp_path: Path) -> Path:
    path = tmp_path / "dump.json"
    path.write_text(json.dumps(redact(example().as_json())))
    return path


def every_command() -> list[list[str]]:
    found: list[list[str]] = []
    context = click.Context(tulle)
    for verb in VERBS:
        command = tulle.get_command(context, verb)  # type: ignore[attr-defined]  # a group
        found.append([verb])
        if isinstance(command, click.Group):
            found += [[verb, inner] for inner in command.commands]
    return found


@pytest.mark.parametrize("words", every_command(), ids=" ".join)
def test_every_help_has_an_example(words: list[str]) -> None:
    result = run(*words, "--help")
    assert result.exit_code == 0
    assert "Example: " in result.output


def test_the_first_help_loads_no_verb() -> None:
    code = (
        "import sys; from agent.cli.main import tulle\n"
        "tulle.main(['--help'], standalone_mode=False)\n"
        "print([m for m in sys.modules if m.startswith(('pyroute2', 'yaml', 'agent.lab.'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    "verb", ["workloads", "services", "policies", "certificates", "connections", "maps", "status"]
)
@pytest.mark.parametrize("shape", ["table", "wide", "json", "yaml", "name"])
def test_every_read_command_reads_a_dump(dump: Path, verb: str, shape: str) -> None:
    result = run(verb, "-f", str(dump), "-o", shape)
    assert result.exit_code == 0, result.output
    assert result.stdout
    if shape == "json":
        assert json.loads(result.stdout)


def test_data_goes_to_stdout_and_talk_to_stderr(dump: Path) -> None:
    result = run("connections", "-f", str(dump), "-n", "absent")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "no open connections\n")
    assert run("connections", "shop/a", "-f", str(dump), "--no-headers").stdout.count("\n") == 1
    assert run("workloads", "-f", str(dump), "-l", "app=a", "-o", "name").stdout == "shop/a\n"
    assert run("workloads", "-f", str(dump), "--node", "n2", "-o", "name").exit_code == 0


def test_namespaces_of_a_dump(dump: Path) -> None:
    lines = run("namespace", "list", "-f", str(dump)).stdout.splitlines()
    assert lines[0].split() == [
        "NAMESPACE",
        "MODE",
        "PODS",
        "CAPTURED",
        "UNCAPTURED-CONNS",
        "POLICIES",
    ]
    assert lines[2].split() == ["shop", "ambient", "2", "1", "4", "1"]


def test_no_mesh_names_what_was_tried(tmp_path: Path) -> None:
    result = run("--run-dir", str(tmp_path), "workloads")
    assert isinstance(result.exception, MeshError)
    assert f"below {tmp_path}: is the mesh running?" in str(result.exception)
    assert run("--run-dir", str(tmp_path), "check").exit_code == 2


def test_a_dump_must_be_one(tmp_path: Path, dump: Path) -> None:
    wrong = tmp_path / "wrong"
    for text in ("{", "[]", '{"dumpVersion": 99}', '{"dumpVersion": 1}'):
        wrong.write_text(text)
        with pytest.raises(ConfigError, match="wrong: "):
            load_dump(wrong)
    assert load_dump(dump).as_json()["nodes"].keys() == {"n1", "n2"}
    wrong.write_text(json.dumps({**ztunnel("n1", "a", "inbound"), "node": "n1"}))
    assert list(load_dump(wrong).nodes) == ["n1"]


def test_a_damaged_dump_is_an_error_and_no_traceback(tmp_path: Path) -> None:
    path = tmp_path / "damaged"
    good = example().as_json()
    damage: list[dict[str, Any]] = [
        {"nodes": []},
        {"control": {"pods": 7}},
        {"nodes": {"n1": 3}},
        {"nodes": {"n1": {"ztunnel": {"workloads": [1]}}}},
        {"nodes": {"n1": {"ztunnel": {"workloads": [{}]}}}},
        {"nodes": {"n1": {"ztunnel": {"workloadState": {"u": {"connections": {"inbound": 1}}}}}}},
        {"nodes": {"n1": {"agent": {"pods": [{"name": "x"}]}}}},
        {"nodes": {"n1": {"check": [{}]}}},
    ]
    for wrong in damage:
        path.write_text(json.dumps({**good, **wrong}))
        with pytest.raises(ConfigError, match="damaged: "):
            load_dump(path)


def test_a_pod_that_no_tunnel_serves_is_not_a_pod_without_traffic(dump: Path) -> None:
    result = run("connections", "shop/nobody", "-f", str(dump))
    assert isinstance(result.exception, ConfigError)
    value = json.loads(dump.read_text())
    value["nodes"]["n1"]["ztunnel"]["workloadState"] = {}
    dump.write_text(json.dumps(value))
    result = run("connections", "a", "-f", str(dump))
    assert (result.exit_code, result.stdout) == (0, "")
    assert "a is not captured" in result.stderr


def test_status_and_policies_name_what_is_not_understood(tmp_path: Path) -> None:
    mesh, path = example(), tmp_path / "dump"
    mesh.control["problems"] = [
        {"file": "p.yaml", "line": 7, "object": "AuthorizationPolicy shop/p", "message": "bad"}
    ]
    path.write_text(json.dumps(mesh.as_json()))
    told = "p.yaml:7: AuthorizationPolicy shop/p: bad"
    assert f"Problems in manifests:\n  {told}\n" in run("status", "-f", str(path)).stdout
    assert run("policies", "-f", str(path)).stderr == f"warning: {told}\n"
    assert "no ztunnel is connected on its node" in run("status", "-f", str(path)).stdout


def test_certificates_of_one_namespace_are_its_leaves(dump: Path) -> None:
    lines = run("certificates", "-n", "shop", "-f", str(dump), "--no-headers").stdout.splitlines()
    assert [line.split()[2] for line in lines] == ["leaf", "leaf"]
    assert run("certificates", "-n", "other", "-f", str(dump)).stdout == ""


def test_a_level_without_a_node_is_not_taken_for_a_node(dump: Path) -> None:
    result = run("log", "level", "debug", "-f", str(dump))
    assert "tulle log level - debug" in str(result.exception)


def test_what_became_of_a_namespace() -> None:
    mesh = example()
    mesh.control["pods"] = [
        {"namespace": "shop", "name": name, "enrolled": True} for name in ("a", "b")
    ]
    done, text = namespace.outcome(mesh, "shop", enrolling=True)
    assert not done
    assert text == "1 of 2 pods captured\n  b: failed, no ztunnel is connected on its node"
    mesh.nodes["n2"]["agent"]["pods"][0]["state"] = "captured"
    assert namespace.outcome(mesh, "shop", enrolling=True) == (True, "2 of 2 pods captured")
    assert not namespace.outcome(mesh, "shop", enrolling=False)[0]
    assert namespace.outcome(mesh, "idle", enrolling=True)[0]  # nobody to wait for


def test_a_mistyped_verb_is_guessed() -> None:
    assert "Did you mean 'status'?" in run("stauts").stderr
    assert run("--version").stdout.startswith("tulle ")


def test_usage_errors() -> None:
    assert run("workloads", "-l", "app in (a)").exit_code == 2
    assert run("nonsense").exit_code == 2
    assert run("lab", "delete").exit_code == 2


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str) -> None:
    assert "_TULLE_COMPLETE" in run("completion", shell).stdout


def one(result: str, **more: str) -> dict[str, Any]:
    return {
        "code": "TUL0101",
        "category": "kernel",
        "description": "it is new",
        "result": result,
        "error": "too old" if result != "ok" else "",
        "hint": "update" if result != "ok" else "",
        **more,
    }


def test_check_renders_categories_signs_reasons_and_codes() -> None:
    checks = [one("ok"), one("error", node="n1"), one("warning")]
    text = check.render(checks, "table", colour=False)
    assert text == (
        "kernel\n------\n√ it is new\n‼ it is new\n    too old\n    hint: update\n"
        "    see TUL0101 in README.md#check\n\nkernel (n1)\n-----------\n× it is new\n    too old\n"
        "    hint: update\n    see TUL0101 in README.md#check\n\nStatus check results are ×\n"
    )
    assert "√" not in check.render(checks, "short", colour=False)
    assert json.loads(check.render(checks, "json", colour=False))["success"] is False
    assert check.verdict([one("ok"), one("warning")]) == "warning"
    assert check.verdict([one("ok")]) == "ok"


def test_check_exit_codes_from_a_dump(tmp_path: Path) -> None:
    mesh = example()
    for result, code in (("ok", 0), ("warning", 0), ("error", 1)):
        for parts in mesh.nodes.values():
            parts["check"] = [one(result)]
        path = tmp_path / f"{result}.json"
        path.write_text(json.dumps(mesh.as_json()))
        assert run("check", "-f", str(path)).exit_code == code
    mesh.nodes["n1"].pop("check")
    assert "TUL1101" in [item["code"] for item in check.collect(mesh)]
    mesh.control["problems"] = [{"file": "a.yaml", "line": 3, "message": "bad"}]
    assert "a.yaml:3: bad" in [item["error"] for item in check.collect(mesh)]


def test_log_levels_are_rows() -> None:
    mesh = example()
    mesh.control["log"] = {"": "info"}
    mesh.nodes["n1"]["logging"] = {
        "agent": {"": "info"},
        "ztunnel": {"": "info", "access": "debug"},
    }
    found = [(row["component"], row["scope"], row["level"]) for row in log_rows(mesh, "n1", None)]
    assert found == [
        ("agent", "*", "info"),
        ("ztunnel", "*", "info"),
        ("ztunnel", "access", "debug"),
    ]
    assert [row["component"] for row in log_rows(mesh, "", "control")] == ["control"]


def test_a_namespace_is_edited_where_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "all.yaml"
    path.parent.mkdir()
    text = (
        "# head\n---\nkind: Namespace\nmetadata:\n  name: shop # it\n---\n"
        "# tail\nkind: X\nmetadata: {name: y}\n"
    )
    path.write_text(text)
    found, old, new = namespace.edited(tmp_path, "shop", f"{namespace.LABEL}=ambient")
    assert (found, old) == (path, text)
    added = f"  labels:\n    {namespace.LABEL}: ambient\n"
    assert new.replace(added, "") == text
    assert f"+    {namespace.LABEL}: ambient\n" in namespace.difference(path, old, new)
    path.write_text(new.replace(namespace.LABEL, "istio.io/dataplane-mode"))
    gone = namespace.edited(tmp_path, "shop", f"{namespace.LABEL}-")[2]
    assert "labels" not in next(yaml.safe_load_all(gone))["metadata"]
    with pytest.raises(ConfigError, match="no Namespace absent"):
        namespace.edited(tmp_path, "absent", f"{namespace.LABEL}-")
