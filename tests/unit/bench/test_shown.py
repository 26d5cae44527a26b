"""The table and the picture of a run, and the choice of what to run."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from tests.bench import plot, table
from tests.bench.__main__ import parser, plan_of
from tests.bench.model import BenchError, System, Topology
from tests.unit.bench.made import ENVOY, HAPROXY, NONE, SAME, TULLE, measurement, result

SVG = "{http://www.w3.org/2000/svg}"


def made_up() -> str:
    return plot.svg(
        result(
            measurement("c64", ENVOY, rps=100.0, p99_us=100.0),
            measurement("c64", TULLE, rps=130.0, p99_us=50.0),
            measurement("c64", HAPROXY, rps=50.0, p99_us=100_000.0),
            measurement("c64", NONE, topology=SAME, rps=100.0),
            measurement("c64", TULLE, topology=SAME, rps=98.0),
        )
    )


def texts(svg: str) -> list[str]:
    return [node.text or "" for node in ET.fromstring(svg).iter(f"{SVG}text")]


def test_the_picture_says_how_many_times_better() -> None:
    said = texts(made_up())
    assert "1.30×" in said
    assert "2.00×" in said  # half the p99 is twice as good
    assert "0.98×" in said
    assert "cross-node, against Envoy" in said
    assert "same-node, against no mesh" in said


def test_bars_stay_in_the_picture() -> None:
    root = ET.fromstring(made_up())
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    for node in root.iter(f"{SVG}rect"):
        x, y = float(node.attrib.get("x", 0)), float(node.attrib.get("y", 0))
        assert 0 <= x <= x + float(node.attrib["width"]) <= width
        assert 0 <= y <= y + float(node.attrib["height"]) <= height


def test_a_run_without_a_pair_still_makes_a_picture() -> None:
    assert any("nothing" in text for text in texts(plot.svg(result())))


def test_names_of_the_machine_cannot_break_the_picture() -> None:
    assert any("a <fast> one" in text for text in texts(made_up()))


def test_the_table_has_ratios_first_and_says_what_was_thrown_away() -> None:
    text = table.text(
        result(
            measurement("c1", ENVOY, rps=5000.0),
            measurement("c1", TULLE, rps=6000.0),
            measurement("c1", TULLE, rps=10.0, kept=False),
        )
    )
    assert text.index("Tulle/Envoy") < text.index("6,000 /s")
    assert "1.20" in text
    assert "1 measurements thrown away: others used up to 40% of the machine" in text


def test_the_default_is_everything() -> None:
    plan = plan_of(parser().parse_args([]))
    assert len(plan.cases) == 13
    assert plan.systems == [each for each in System if each is not System.ZTUNNEL]
    assert plan.ztunnel == []
    assert plan.topologies == list(Topology)
    assert plan.foreign_max == pytest.approx(0.1)


def test_a_choice_keeps_the_order_of_the_house() -> None:
    plan = plan_of(parser().parse_args(["--cases", "bulk1,c1", "--systems", "envoy,none"]))
    assert [case.name for case in plan.cases] == ["c1", "bulk1"]
    assert plan.systems == [System.NONE, System.ENVOY]


def test_another_ztunnel_takes_part_where_its_command_is_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(BenchError, match="TULLE_ZTUNNEL"):
        plan_of(parser().parse_args(["--systems", "tulle,ztunnel"]))
    monkeypatch.setenv("TULLE_ZTUNNEL", "/opt/ztunnel proxy")
    plan = plan_of(parser().parse_args([]))
    assert plan.systems == list(System)
    assert plan.ztunnel == ["/opt/ztunnel", "proxy"]


@pytest.mark.parametrize(
    "words",
    [
        ["--cases", "c2"],
        ["--cases", ","],
        ["--systems", "x"],
        ["--rounds", "0"],
        ["--rounds", "99"],
        ["--seconds", "0.5"],
        ["--foreign", "0"],
        ["--foreign", "200"],
    ],
)
def test_what_cannot_be_run_is_said(words: list[str]) -> None:
    with pytest.raises(BenchError):
        plan_of(parser().parse_args(words))
