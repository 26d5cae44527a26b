"""`tulle namespace`: the list, the edited manifest, and what became of the pods."""

from __future__ import annotations

import os
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


def edited(folder: Path, label: str = ADD) -> str:
    return namespace.edited(folder, "shop", label)[2]


def test_a_broken_neighbour_hides_no_namespace(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"kind: \xff")
    (tmp_path / "b.yaml").write_text("kind: [\n---\nkind: Namespace\nmetadata: {name: shop}\n")
    assert "labels: {tulle.io/dataplane-mode: ambient}" in edited(tmp_path)
    with pytest.raises(ConfigError, match=r"(?s)no Namespace absent.*a\.yaml.*b\.yaml:2"):
        namespace.edited(tmp_path, "absent", ADD)


def test_a_namespace_in_a_list_or_behind_a_link_is_found(tmp_path: Path) -> None:
    (tmp_path / "releases").mkdir()
    (tmp_path / "mesh").mkdir()
    (tmp_path / "mesh" / "current").symlink_to(tmp_path / "releases")
    text = "kind: NamespaceList\nitems:\n- kind: Namespace\n  metadata: {name: shop} # it\n"
    (tmp_path / "releases" / "all.yaml").write_text(text)
    found, _, new = namespace.edited(tmp_path / "mesh", "shop", ADD)
    assert found == tmp_path / "mesh" / "current" / "all.yaml"
    assert "labels: {tulle.io/dataplane-mode: ambient}, name: shop} # it" in new


def test_a_link_stays_a_link_and_the_file_keeps_its_mode_and_line_ends(tmp_path: Path) -> None:
    target = tmp_path / "real.yaml"
    target.write_bytes(b"kind: Namespace\r\nmetadata:\r\n  name: shop # it\r\n")
    target.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(target, 12345, 54321)
    (tmp_path / "mesh").mkdir()
    link = tmp_path / "mesh" / "ns.yaml"
    link.symlink_to(target)
    path, old, new = namespace.edited(tmp_path / "mesh", "shop", ADD)
    namespace.write(path, old, new)
    assert link.is_symlink()
    assert target.read_bytes().count(b"\r\n") == 5
    assert b"name: shop # it\r\n" in target.read_bytes()
    found = target.stat()
    assert found.st_mode & 0o777 == 0o640
    if os.geteuid() == 0:
        assert (found.st_uid, found.st_gid) == (12345, 54321)


def test_nothing_is_written_over_a_change_or_a_read_only_file(tmp_path: Path) -> None:
    path = tmp_path / "ns.yaml"
    path.write_text("kind: Namespace\nmetadata: {name: shop}\n")
    _, old, new = namespace.edited(tmp_path, "shop", ADD)
    path.chmod(0o444)
    with pytest.raises(ConfigError, match="read-only"):
        namespace.write(path, old, new)
    path.chmod(0o644)
    path.write_text(old + "# mine\n")
    with pytest.raises(ConfigError, match="changed meanwhile"):
        namespace.write(path, old, new)
    assert path.read_text() == old + "# mine\n"
    path.unlink()
    with pytest.raises(ConfigError, match="No such file"):
        namespace.write(path, old, new)


def test_leaving_keeps_the_users_comments(tmp_path: Path) -> None:
    text = (
        "# who\nkind: Namespace\nmetadata:\n  name: shop\n  labels: # ours\n"
        "    # agreed with the shop team\n    tulle.io/dataplane-mode: ambient # since May\n"
    )
    (tmp_path / "ns.yaml").write_text(text)
    gone = edited(tmp_path, REMOVE)
    for comment in ("# who", "# ours", "# agreed with the shop team", "# since May"):
        assert comment in gone
    assert "ambient" not in gone


def test_what_leaving_cuts_is_said() -> None:
    mesh = example()
    assert namespace.cut(mesh, "shop").startswith("may cut 2 open connections")
    assert namespace.cut(mesh, "idle") == "no open connection of idle goes through the mesh"
    mesh.away["ztunnel-n1"] = "no answer in time"
    assert "ztunnel-n1" in namespace.cut(mesh, "shop")


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
