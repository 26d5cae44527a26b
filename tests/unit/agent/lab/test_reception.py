"""The control plane's verdicts on applied objects, with the line numbers of the user's file."""

from __future__ import annotations

from typing import Any

from agent.cli.manifests import split
from agent.lab import reception
from agent.lab.manifests import Manifests, join

POLICY = """\
kind: AuthorizationPolicy
metadata: {name: p, namespace: shop}
spec:
  action: ALLOWW
"""
OTHER = "kind: ConfigMap\nmetadata: {name: c, namespace: shop}\n"
REF = "AuthorizationPolicy shop/p"


def told(line: int, ref: str = REF) -> dict[str, Any]:
    problem = {"file": "/run/x/applied.yaml", "line": line, "object": ref, "message": "bad"}
    return {"objects": {"Pod": 1, "AuthorizationPolicy": 1}, "problems": [problem]}


def working(text: str) -> Manifests:
    return Manifests({"applied.yaml": split(text, "applied.yaml")})


def test_the_line_is_that_of_the_users_file() -> None:
    mine = split(f"# my file\n---\n{POLICY}", "my.yaml")
    copy = working(join([*split(OTHER, ""), *split(OTHER, ""), *mine]))
    line = copy.files["applied.yaml"][2].line + 3
    found = reception.verdict(told(line), mine, copy, "my.yaml")
    assert found.rejected == (f"my.yaml:6: {REF}: bad",)
    assert found.ignored == ()


def test_a_note_is_told_beside_the_rejection_of_another() -> None:
    mine = split(f"{POLICY}---\n{POLICY.replace('name: p', 'name: q')}", "my.yaml")
    page = told(4)
    page["notes"] = [{**page["problems"][0], "object": f"{REF[:-1]}q", "message": "dropped"}]
    found = reception.verdict(page, mine, working(join(mine)), "my.yaml")
    assert [line.rpartition(": ")[2] for line in found.rejected] == ["bad"]
    assert [line.rpartition(": ")[2] for line in found.noted] == ["dropped"]


def test_an_object_that_was_rewritten_is_shown_where_it_is() -> None:
    mine = split(POLICY, "my.yaml")
    copy = working(POLICY.replace("spec:", "spec: # rewritten"))
    found = reception.verdict(told(4), mine, copy, "my.yaml")
    assert found.rejected == (f"/run/x/applied.yaml:4: {REF}: bad",)


def test_problems_of_others_are_not_ours_and_unread_kinds_are_named() -> None:
    mine = split(OTHER, "my.yaml")
    found = reception.verdict(told(4), mine, working(OTHER), "my.yaml")
    assert found.rejected == ()
    assert found.ignored == (
        "ConfigMap shop/c: the control plane reads no ConfigMap, it has no effect",
    )
