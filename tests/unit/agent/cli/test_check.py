"""`tulle check`: signs, reasons and codes; the exit code; what only the whole mesh can tell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agent.cli import check
from tests.unit.agent.cli.mesh_example import NOTE, example
from tests.unit.agent.cli.verbs import run, save


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


def test_categories_signs_reasons_and_codes() -> None:
    checks = [one("ok"), one("error", node="n1"), one("warning")]
    assert check.render(checks, "table", colour=False) == (
        "kernel\n------\n√ it is new\n‼ it is new\n    too old\n    hint: update\n"
        "    see TUL0101 in README.md#check\n\nkernel (n1)\n-----------\n× it is new\n    too old\n"
        "    hint: update\n    see TUL0101 in README.md#check\n\nStatus check results are ×\n"
    )


def test_a_verifiers_log_keeps_its_lines_and_its_end_is_shown() -> None:
    log = "\n".join(f"{number}: (61) r0 = *(u32 *)(r1 +{number})\t; R0=1" for number in range(50))
    refused = one("error", error=log + "\ndereference of modified ctx ptr\x1b[2J")
    text = check.render([refused], "table", False, check.ERROR_LINES)
    lines = text.splitlines()
    assert "    … 31 lines before (-v shows them)" in lines
    assert "    31: (61) r0 = *(u32 *)(r1 +31)  ; R0=1" in lines
    assert "    dereference of modified ctx ptr?[2J" in lines
    whole = check.render([refused], "table", False)
    assert "    0: (61) r0 = *(u32 *)(r1 +0)    ; R0=1" in whole.splitlines()
    assert "…" not in whole


def test_the_short_form_leaves_out_what_is_well() -> None:
    text = check.render([one("ok"), one("error", node="n1")], "short", colour=False)
    assert "√" not in text
    assert text.startswith("kernel (n1)\n")


def test_json_says_success_and_keeps_the_categories() -> None:
    value = json.loads(check.render([one("ok"), one("error")], "json", colour=False))
    assert value["success"] is False
    assert [group["categoryName"] for group in value["categories"]] == ["kernel"]


def test_colours_are_for_terminals() -> None:
    assert "\x1b[32m√" in check.render([one("ok")], "table", colour=True)
    assert "\x1b" not in check.render([one("ok")], "table", colour=False)


@pytest.mark.parametrize(
    ("results", "verdict"),
    [
        (["ok"], "ok"),
        (["ok", "warning"], "warning"),
        (["warning", "error", "ok"], "error"),
        ([], "ok"),
    ],
)
def test_the_worst_result_is_the_verdict(results: list[str], verdict: str) -> None:
    assert check.verdict([one(result) for result in results]) == verdict


@pytest.mark.parametrize(("result", "code"), [("ok", 0), ("warning", 0), ("error", 1)])
def test_exit_codes_from_a_dump(tmp_path: Path, result: str, code: int) -> None:
    mesh = example()
    for parts in mesh.nodes.values():
        parts["check"] = [one(result)]
    assert run("check", "-f", save(tmp_path, mesh)).exit_code == code


def test_no_mesh_is_a_check_that_could_not_be_made(tmp_path: Path) -> None:
    result = run("--run-dir", str(tmp_path), "check")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")


def codes(mesh: Any) -> dict[str, str]:
    return {item["code"]: item["result"] for item in check.collect(mesh)}


def test_the_whole_tells_who_is_away_and_what_differs() -> None:
    mesh = example()
    for parts in mesh.nodes.values():
        parts["check"] = [one("ok")]
    assert set(codes(mesh).values()) == {"ok"}
    del mesh.nodes["n1"]["check"]
    assert codes(mesh)["TUL1101"] == "error", "an agent is away"
    mesh.nodes["n2"]["agent"]["version"] = "0.9"
    assert codes(mesh)["TUL1301"] == "warning", "an upgrade is not finished"
    mesh.control["problems"] = [{"file": "a.yaml", "line": 3, "message": "bad"}]
    assert codes(mesh)["TUL1202"] == "error"
    assert "a.yaml:3: bad" in [item["error"] for item in check.collect(mesh)]


def test_pods_that_refused_a_nodes_own_network_are_told_up_to_a_bound() -> None:
    mesh = example()
    host = {"reason": "host network", "node": "n2", "addresses": ["10.70.0.2"]}
    mesh.control["pods"] = [host]
    assert codes(mesh)["TUL1006"] == "ok"
    refused = [
        {"reason": "inbound_strict", "src": "10.70.0.2:9", "dst": f"10.71.1.2:{port}", "count": 1}
        for port in range(1000, 1030)
    ]
    mesh.nodes["n1"]["agent"]["pods"][0]["refused"] = refused
    told = [each for each in check.collect(mesh) if each["code"] == "TUL1006"]
    assert {each["result"] for each in told} == {"warning"}
    assert len(told) == check.TOLD_MAX + 1
    assert told[-1]["error"] == "… and 10 more"
    del mesh.control["pods"]
    assert "TUL1006" not in codes(mesh)


def test_what_was_not_heard_has_no_tick() -> None:
    mesh = example()
    mesh.nodes = {"n1": {}, "n2": {}}
    mesh.control = {}
    mesh.away = {"agent-n1": "nothing listens", "agent-n2": "no answer in time"}
    assert "ok" not in codes(mesh).values()
    assert codes(mesh)["TUL1201"] == "warning", "the control plane is on another host"
    mesh.away["control"] = "no answer in time"
    assert codes(mesh)["TUL1201"] == "error", "it should answer here"
    said = " ".join(item["error"] for item in check.collect(mesh))
    assert "nothing listens" in said
    assert "not known of: n1, n2" in said


def test_a_policy_that_is_not_enforced_as_written_is_a_warning_of_its_own() -> None:
    mesh = example()
    for parts in mesh.nodes.values():
        parts["check"] = [one("ok")]
    mesh.control["notes"] = [NOTE, {**NOTE, "message": "everything is denied"}]
    found = [item for item in check.collect(mesh) if item["code"] == "TUL1203"]
    assert [item["result"] for item in found] == ["warning", "warning"]
    assert "p.yaml:7: AuthorizationPolicy shop/p: the rule is dropped" in found[0]["error"]
    assert check.verdict(check.collect(mesh)) == "warning"


@pytest.mark.parametrize("part", ["agent", "check", "problems", "notes", "status"])
def test_each_page_that_is_missing_is_missed(part: str) -> None:
    mesh = example()
    for parts in mesh.nodes.values():
        parts["check"] = [one("ok")]
    (mesh.nodes["n1"] if part in ("agent", "check") else mesh.control).pop(part)
    mesh.away["agent-n1" if part in ("agent", "check") else "control"] = "500"
    assert set(codes(mesh).values()) != {"ok"}


def test_problems_of_one_kind_share_their_hint() -> None:
    checks = [{**one("error"), "error": f"a.yaml:{line}: no"} for line in (1, 2)]
    text = check.render([*checks, one("ok"), one("ok")], "table", colour=False)
    assert text.count("hint:") == 1
    assert "    a.yaml:1: no\n    a.yaml:2: no\n" in text
    assert text.count("√") == 2


@pytest.mark.parametrize("words", [("--node", "n1"), ("-f", "mesh.json")])
def test_before_the_mesh_there_is_no_node_and_no_dump(words: tuple[str, str]) -> None:
    result = run("check", "--pre", *words)
    assert result.exit_code == 2
    assert "leave --node, -f out" in result.output
