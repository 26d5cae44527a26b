"""The metrics page, read back by Prometheus' own parser."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from agent.metrics import Family, render


def test_gauges_and_counters_are_read_back() -> None:
    page = render(
        [
            Family("a_b", "gauge", 'What "it" is\nabout', (("", 3.5),)),
            Family("c_total", "counter", "Count", (("x", 1), ("y", 2)), "kind"),
            Family("empty_total", "counter", "None yet", (), "kind"),
        ]
    )
    found = {family.name: family for family in text_string_to_metric_families(page)}
    assert found["a_b"].samples[0].value == 3.5
    assert found["a_b"].type == "gauge"
    assert [(s.name, s.labels, s.value) for s in found["c"].samples] == [
        ("c_total", {"kind": "x"}, 1.0),
        ("c_total", {"kind": "y"}, 2.0),
    ]


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_label_survives(text: str) -> None:
    page = render([Family("a", "gauge", "Help", ((text, 1),), "label")])
    (family,) = text_string_to_metric_families(page)
    assert family.samples[0].labels == {"label": text}
