"""The chart rendered once for all tests of a run."""

from __future__ import annotations

import functools

import pytest

from daemonset.tools import __main__ as manifests
from daemonset.tools.render import Object, helm, objects_of

# Everything that can be switched on.
FULL = (
    *("--set", "monitoring.podMonitor=true", "--set", "monitoring.prometheusRule=true"),
    *("--set", "monitoring.dashboards=true", "--set", "scheduling.resourceQuota=true"),
)


@pytest.fixture(scope="session")
def helm_program() -> str:
    program = manifests.helm()
    assert program is not None, "no helm: make ready-dev"
    return program


@functools.cache
def _rendered(program: str, flags: tuple[str, ...]) -> str:
    return helm(*flags, program=program)


@pytest.fixture
def full(helm_program: str) -> list[Object]:
    return objects_of(_rendered(helm_program, FULL))


@pytest.fixture
def plain(helm_program: str) -> list[Object]:
    return objects_of(_rendered(helm_program, ()))


@pytest.fixture
def hooks(helm_program: str) -> list[Object]:
    """Objects that exist for the length of `helm uninstall`."""
    found = objects_of(helm(program=helm_program, has_hooks=True))
    return [each for each in found if "helm.sh/hook" in each["metadata"].get("annotations", {})]
