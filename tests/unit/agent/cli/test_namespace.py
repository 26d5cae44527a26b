"""`tulle namespace`: the list, the edited manifest, and what became of the pods."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from agent.cli import namespace
from agent.fetch import FetchError
from control.kit.errors import ConfigError
from tests.unit.agent.cli.mesh_example import example
from tests.unit.agent.cli.verbs import rows, run

ADD, REMOVE = f"{namespace.LABEL}=ambient", f"{namespace.LABEL}-"


def test_the_list_of_a_dump(dump: str) -> None:
    titles, *found = rows(run("namespace", "list", "-f", dump))
    assert titles == ["NAMESPACE", "MODE", "PODS", "CAPTURED", "UNCAPTURED-CONNS", "POLICIES"]
    assert found[1] == ["shop", "ambient", "2", "1", "4", "1"]


def test_the_outcome_of_a_change() -> None:
    mesh = example()
    mesh.control["pods"] = [
        {"namespace": "shop", "name": name, "enrolled": True} for name in ("a", "b")
    ]
    done, text = namespace.outcome(mesh, "shop", enrolling=True)
    assert not done
    assert text == "1 of 2 pods captured\n  b: failed, no ztunnel is connected on its node"
    mesh.nodes["n2"]["agent"]["pods"][0]["state"] = "captured"
    assert namespace.outcome(mesh, "shop", enrolling=True) == (True, "2 of 2 pods captured")
    assert not namespace.outcome(mesh, "shop", enrolling=False)[0]
    assert namespace.outcome(mesh, "idle", enrolling=True)[0]  # nobody to wait for


def test_leaving_is_done_when_nothing_is_captured() -> None:
    mesh = example()
    mesh.control["pods"] = [{"namespace": "shop", "name": "a", "enrolled": False}]
    assert namespace.outcome(mesh, "shop", enrolling=False) == (
        False,
        "shop is out of the mesh; 1 not yet released",
    )
    mesh.nodes["n1"]["agent"]["pods"][0]["state"] = "not_enrolled"
    assert namespace.outcome(mesh, "shop", enrolling=False) == (True, "shop is out of the mesh")


@pytest.fixture
def manifests(tmp_path: Path) -> Path:
    path = tmp_path / "sub" / "all.yaml"
    path.parent.mkdir()
    path.write_text(
        "# head\n---\nkind: Namespace\nmetadata:\n  name: shop # it\n---\n"
        "# tail\nkind: X\nmetadata: {name: y}\n"
    )
    return path


def test_a_namespace_is_edited_where_it_stands(tmp_path: Path, manifests: Path) -> None:
    text = manifests.read_text()
    found, old, new = namespace.edited(tmp_path, "shop", ADD)
    assert (found, old) == (manifests, text)
    added = f"  labels:\n    {namespace.LABEL}: ambient\n"
    assert new.replace(added, "") == text
    assert f"+    {namespace.LABEL}: ambient\n" in namespace.difference(manifests, old, new)
    with pytest.raises(ConfigError, match="no Namespace absent"):
        namespace.edited(tmp_path, "absent", REMOVE)


def test_leaving_takes_istios_label_too(tmp_path: Path, manifests: Path) -> None:
    added = namespace.edited(tmp_path, "shop", ADD)[2]
    manifests.write_text(added.replace(namespace.LABEL, "istio.io/dataplane-mode"))
    gone = namespace.edited(tmp_path, "shop", REMOVE)[2]
    assert "labels" not in next(yaml.safe_load_all(gone))["metadata"]


def test_a_second_time_changes_nothing(tmp_path: Path, manifests: Path) -> None:
    manifests.write_text(namespace.edited(tmp_path, "shop", ADD)[2])
    _, old, new = namespace.edited(tmp_path, "shop", ADD)
    assert old == new


def test_a_difference_ends_each_line(tmp_path: Path) -> None:
    told = namespace.difference(tmp_path, "a: 1", "a: 2")
    assert told.endswith("-a: 1\n+a: 2\n")


@pytest.mark.parametrize("verb", ["add", "remove"])
def test_without_a_control_plane_nothing_is_changed(tmp_path: Path, verb: str) -> None:
    (tmp_path / "control").mkdir()
    (tmp_path / "control" / "admin.sock").touch()
    result = run("--run-dir", str(tmp_path), "namespace", verb, "shop", "--yes")
    assert isinstance(result.exception, FetchError)
    assert "the control plane does not answer" in str(result.exception)
