"""docs/bounds.md says the figures of the code."""

from __future__ import annotations

import re
from dataclasses import fields
from importlib import import_module
from pathlib import Path

import pytest

from agent.datapath.errors import MapFull
from control.kit.door import PORT, UNIX_SOCKET, DoorBounds
from control.kit.page_refusals import PageRefusal
from control.server.callers import budget
from control.server.callers.budget import Bound, Pace
from control.server.callers.refusals import CallRefusal
from ztunnel.refusals import Reason
from ztunnel.supervisor.pods import TooManyPods, WorkersNotReady
from ztunnel.tenants import bounds
from ztunnel.tenants.portions import Quota

PAGE = (Path(__file__).parents[2] / "docs" / "bounds.md").read_text()
CONTROL, _, REST = PAGE.partition("# Of the client of an API server")
KUBE, _, REST = REST.partition("# Of the CNI plugin's door")
CNI, _, REST = REST.partition("# Of the container runtime's follower")
RUNTIME, _, REST = REST.partition("# Of a node's pods")
NODE, _, REST = REST.partition("# Of the tables in the kernel")
KERNEL, _, REST = REST.partition("# Of a ztunnel's supervisor")
SUPERVISOR, _, REST = REST.partition("# Of a ztunnel's worker")
ZTUNNEL, _, DOORS = REST.partition("# Of admin, metrics and readiness doors")
DOOR_BOUNDS = {each.name for each in fields(DoorBounds)}
# Package -> the part of the page about it, and its reasons.
PARTS = {
    "control.server": (CONTROL, {each.word for each in CallRefusal}),
    "control.kube": (KUBE, set()),
    "agent.cni": (CNI, set()),
    "agent.cri": (RUNTIME, set()),
    "agent": (NODE, set()),
    "bpf": (KERNEL, {MapFull.reason}),
    "ztunnel.supervisor": (
        SUPERVISOR,
        {TooManyPods.reason, WorkersNotReady.reason} | {each.word for each in Reason},
    ),
    "ztunnel": (ZTUNNEL, {each.word for each in Reason}),
    "control.kit": (DOORS, {each.word for each in PageRefusal} | DOOR_BOUNDS),
}


def rows(part: str) -> list[list[str]]:
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in part.splitlines()
        if line.startswith("| `")
    ]


def by_name(part: str) -> dict[str, list[str]]:
    return {row[0].strip("`"): row for row in rows(part)}


FIGURES = [
    (package, row)
    for package, (part, _) in PARTS.items()
    for row in rows(part)
    if row[2].endswith(".py`")
]


def test_every_share_and_pace_is_on_the_page_with_its_figures() -> None:
    page = by_name(CONTROL)
    for name, value in vars(budget).items():
        if isinstance(value, Bound):
            assert page[name][1:3] == [str(value.each), str(value.total)]
        elif isinstance(value, Pace):
            assert [float(each) for each in page[name][1:3]] == [value.per_s, value.burst]
        else:
            continue
        if value.why is not None:
            assert f"`{value.why.word}`" in page[name][3]


# One at a time, in turns: the total is a turn, and no tenant can hold more than its own.
TURNS = {"BUILDING"}


def test_no_tenant_has_more_than_half_of_what_there_is_for_all() -> None:
    for name, row in by_name(CONTROL).items():
        value = vars(budget).get(name)
        if not isinstance(value, Bound) or name in TURNS:
            continue
        assert 2 * int(row[1]) <= int(row[2]), name
        for total in (1, 2, 3, 9, 100, value.total):
            lowered = value.lowered(total)
            assert lowered.total <= total
            assert 2 * lowered.each <= lowered.total or lowered.each == 1, (name, total)
    for field_name in ("connections_each", "connections_network"):
        assert 2 * getattr(PORT, field_name) <= PORT.connections
    for name, quota in vars(bounds).items():
        if isinstance(quota, Quota):
            assert 2 * quota.floor <= quota.total, name


def test_every_quota_of_a_worker_is_on_the_page_with_its_figures() -> None:
    page = by_name(ZTUNNEL)
    for name, value in vars(bounds).items():
        if isinstance(value, Quota):
            assert page[name][1:3] == [str(value.total), str(value.floor)]


@pytest.mark.parametrize(("package", "row"), FIGURES, ids=str)
def test_every_size_and_time_is_that_of_the_code(package: str, row: list[str]) -> None:
    name, figure, where = (cell.strip("`") for cell in row[:3])
    path = where.removesuffix(".py").replace("/", ".")
    module = import_module(path if path.startswith("control.kit.") else f"{package}.{path}")
    assert float(figure) == getattr(module, name)


@pytest.mark.parametrize("package", PARTS)
def test_every_reason_on_the_page_exists(package: str) -> None:
    part, known = PARTS[package]
    words = {word for row in rows(part) for word in re.findall(r"`([a-z0-9_]+)`", row[3])}
    assert {each for each in words if "_" in each} - {"left_out"} <= known


def test_the_bounds_of_doors_are_those_of_the_code() -> None:
    page = by_name(DOORS)
    for name in DOOR_BOUNDS:
        figures = [float(getattr(each, name)) for each in (PORT, UNIX_SOCKET)]
        assert [float(each) for each in page[name][1:3]] == figures
