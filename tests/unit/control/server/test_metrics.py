"""The control plane's numbers: labels that stay few, and reasons that go with their problem."""

from __future__ import annotations

from control.kube.errors import Unreachable
from control.kube.reflection import Reflection
from control.server.metrics import Metrics, short_type
from control.server.sources.problem import Problem
from control.wire.types import ADDRESS_TYPE, AUTHORIZATION_TYPE, NAMESPACE_TYPE, POD_TYPE


def test_types_are_few_labels() -> None:
    types = (ADDRESS_TYPE, AUTHORIZATION_TYPE, POD_TYPE, NAMESPACE_TYPE)
    known = [short_type(each) for each in types]
    assert known == ["Address", "Authorization", "Pod", "Namespace"]
    assert {short_type(f"type.googleapis.com/x.Y{n}") for n in range(9)} == {"other"}


def test_a_problem_that_is_gone_is_gone_from_the_page() -> None:
    metrics = Metrics()
    problems = [Problem("a.yaml", line, "Pod a/b", "invalid", "no") for line in (1, 2)]

    def value(name: str, **labels: str) -> float | None:
        return metrics.registry.get_sample_value(name, labels)

    metrics.show_objects({"Pod": 3, "Service": 0})
    metrics.show_problems(problems)
    assert value("tulle_control_problems", reason="invalid") == 2
    assert value("tulle_control_objects", kind="Pod") == 3
    assert value("tulle_control_objects", kind="Service") == 0
    metrics.show_objects({"Pod": 1})
    metrics.show_problems([])
    assert value("tulle_control_problems", reason="invalid") is None


def test_each_kind_of_an_api_server_says_how_it_is_followed() -> None:
    metrics, fine, lost = Metrics(), Reflection(), Reflection()
    fine.next(0.0)
    fine.line("1", True, 0.0)
    lost.next(0.0)
    lost.failed(Unreachable("x"), 0.0)
    metrics.follow({"Pod": fine, "Node": lost})

    def values(name: str) -> list[float | None]:
        found = metrics.registry.get_sample_value
        return [found(f"tulle_control_kube_{name}", {"kind": each}) for each in ("Pod", "Node")]

    assert values("followed") == [1, 0]
    assert values("failures_total") == [0, 1]
    assert values("lists_total") == [1, 0]
