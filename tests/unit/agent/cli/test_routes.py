"""`tulle routes`: the rules of waypoints, and one request explained."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from control.kit.errors import ConfigError
from control.wire.waypoint_page import rows_of
from tests.unit.agent.cli.mesh_example import example
from tests.unit.agent.cli.verbs import run, save
from tests.unit.agent.cli.views.test_explanation import NO_ADMIN, WAYPOINT


@pytest.fixture
def routed(tmp_path: Path) -> str:
    mesh = example()
    fronts = {name: replace(each, policies=(NO_ADMIN,)) for name, each in WAYPOINT.fronts.items()}
    mesh.control["routes"] = [*rows_of([replace(WAYPOINT, fronts=fronts)])]
    return save(tmp_path, mesh)


def test_rules_are_listed_in_their_order(routed: str) -> None:
    lines = run("routes", "-f", routed).stdout.splitlines()
    assert lines[0].split() == ["NAMESPACE", "SERVICE", "PORT", "MATCH", "TO", "POLICIES"]
    assert "80% shop/web-v1:80, 20% shop/web-v2:80" in lines[3]
    assert len(lines) == 5
    assert run("routes", "list", "web", "-n", "shop", "-f", routed).stdout.splitlines() == lines
    wide = run("routes", "-f", routed, "-o", "wide").stdout
    assert "shop/r/2/0" in wide
    assert "timeout 5 s" in wide


def test_a_service_without_a_waypoint_has_no_row(routed: str, dump: str) -> None:
    found = run("routes", "-f", dump)
    assert (found.exit_code, found.stdout) == (0, "")
    assert "no service is behind a waypoint" in found.stderr
    assert "no service 'other'" in str(run("routes", "other", "-f", routed).exception)


def test_the_way_of_a_request_is_told_step_by_step(routed: str) -> None:
    found = run("routes", "explain", "GET", "http://web/cart", "--as", "shop/a", "-f", routed)
    assert [line.split("   ")[0].strip() for line in found.stdout.splitlines()] == [
        "STEP",
        "service",
        "waypoint",
        "policy",
        "route",
        "backend",
        "backend",
    ]
    assert "80% shop/web-v1:80, 1/2 endpoints" in found.stdout
    assert found.exit_code == 0


def test_a_request_that_is_refused_names_its_policy_and_exits_1(routed: str) -> None:
    words = ("routes", "explain", "GET", "http://web/admin", "--as", "shop/a", "-f", routed)
    found = run(*words)
    assert found.exit_code == 1
    assert "denied by shop/no-admin" in found.stdout
    told = json.loads(run(*words, "-o", "json").stdout)
    assert (told["allowed"], told["policy"]) == (False, "shop/no-admin")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("GET", "web/x"), "is no URL"),
        (("GET", "http://web/x"), "no service behind a waypoint is web:80"),
        (("GET", "http://web/x", "--as", "nobody"), "is not namespace/account"),
        (("GET", "http://web/x", "--as", "a b/c"), "is not namespace/account"),
        (("GET", "http://web.shop/x", "-H", "oops"), "is no header"),
    ],
)
def test_a_question_without_an_answer_says_why(
    routed: str, words: tuple[str, ...], said: str
) -> None:
    found = run("routes", "explain", *words, "-f", routed)
    assert isinstance(found.exception, ConfigError)
    assert said in str(found.exception)


def test_a_page_of_another_version_is_an_error(tmp_path: Path) -> None:
    mesh = example()
    mesh.control["routes"] = [{"namespace": "shop", "name": "waypoint", "front": {}}]
    found = run("routes", "-f", save(tmp_path, mesh))
    assert isinstance(found.exception, ConfigError)
    assert "not of this version" in str(found.exception)
