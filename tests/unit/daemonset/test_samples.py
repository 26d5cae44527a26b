"""The samples: valid, and in step with the chart and the definitions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from daemonset.tools import render
from tests.unit.daemonset.test_crds import KINDS, schema_of

SAMPLES = render.ROOT / "daemonset/samples"
FOREIGN = ("argoproj.io", "toolkit.fluxcd.io")


def objects() -> list[Any]:
    return [
        pytest.param(each, id=f"{path.stem}-{each['kind']}-{each['metadata']['name']}")
        for path in sorted(SAMPLES.rglob("*.yaml"))
        for each in yaml.safe_load_all(path.read_text())
    ]


@pytest.mark.parametrize("value", objects())
def test_a_sample_is_valid(value: dict[str, Any]) -> None:
    group = value["apiVersion"].rpartition("/")[0]
    if value["kind"] in KINDS:
        jsonschema.validate(value, schema_of(value["kind"]))
    elif not group.endswith(FOREIGN):
        kubernetes_validate.validate(value, "1.36", strict=True)


def test_the_samples_run_what_the_image_holds() -> None:
    version = yaml.safe_load((render.CHART / "Chart.yaml").read_text())["appVersion"]
    for value in yaml.safe_load_all((SAMPLES / "bookinfo.yaml").read_text()):
        if value["kind"] == "Deployment":
            (container,) = value["spec"]["template"]["spec"]["containers"]
            assert container["image"] == f"tulle:{version}"
    built = (render.ROOT / "daemonset/image/Containerfile").read_text()
    assert "/out/usr/lib/tulle/samples/shop.py" in built


def test_the_settings_of_gitops_exist(helm_program: str, tmp_path: Path) -> None:
    (application, _) = yaml.safe_load_all((SAMPLES / "gitops/argocd.yaml").read_text())
    values = [application["spec"]["source"]["helm"]["valuesObject"]]
    values += [
        each["spec"]["values"]
        for each in yaml.safe_load_all((SAMPLES / "gitops/flux.yaml").read_text())
        if each["kind"] == "HelmRelease"
    ]
    assert len(values) == 2
    for each in values:
        file = tmp_path / "values.yaml"
        file.write_text(yaml.safe_dump(each))
        assert "kind: DaemonSet" in render.helm("--values", str(file), program=helm_program)
