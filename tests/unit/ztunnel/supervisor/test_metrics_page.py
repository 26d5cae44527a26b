"""Samples as Prometheus reads them."""

from __future__ import annotations

from prometheus_client import generate_latest

from ztunnel.supervisor.metrics import Sample
from ztunnel.supervisor.metrics_page import registry_of

PREFIX = "tulle_ztunnel_"


def test_a_counter_and_a_gauge_with_the_same_stem_are_two_families() -> None:
    samples = [Sample(f"{PREFIX}direct_services_total", 9), Sample(f"{PREFIX}direct_services", 2)]
    text = generate_latest(registry_of(samples)).decode()
    assert f"# TYPE {PREFIX}direct_services_total counter" in text
    assert f"# TYPE {PREFIX}direct_services gauge" in text
    assert f"{PREFIX}direct_services_total 9.0" in text
    assert f"{PREFIX}direct_services 2.0" in text
