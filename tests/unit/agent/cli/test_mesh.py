"""Reading a mesh: from sockets that may be away, or from a dump that may be damaged."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from agent.cli import mesh, processes
from agent.cli.mesh import MeshSource, load_dump, read_labels
from agent.cli.processes import Heard, MeshProcess
from agent.fetch import FetchError
from control.kit.errors import ConfigError, MeshError
from tests.unit.agent.cli.mesh_example import example, ztunnel
from tests.unit.agent.cli.verbs import run, save


def node(folder: Path, name: str) -> Path:
    """A node whose processes have left their sockets behind."""
    (folder / name).mkdir()
    for file in ("agent.sock", "ztunnel.sock"):
        (folder / name / file).touch()
    return folder / name


def test_no_mesh_names_what_was_tried(tmp_path: Path) -> None:
    result = run("--run-dir", str(tmp_path), "workloads")
    assert isinstance(result.exception, MeshError)
    assert f"below {tmp_path}: is the mesh running?" in str(result.exception)
    with pytest.raises(FetchError):
        mesh.read(MeshSource(tmp_path), ("agent",))


def test_a_node_that_is_not_there_is_told_those_that_are(tmp_path: Path) -> None:
    node(tmp_path, "n2")
    node(tmp_path, "n1")
    with pytest.raises(ConfigError, match="there are: n1, n2"):
        mesh.read(MeshSource(tmp_path, node="n3"), ("agent",))


def test_a_socket_that_is_away_is_told_once_and_the_node_is_kept(tmp_path: Path) -> None:
    where = node(tmp_path, "n1")
    found = mesh.read(MeshSource(tmp_path), ("agent", "check", "ztunnel"))
    assert list(found.nodes) == ["n1"]
    assert found.nodes["n1"] == {}
    assert len(found.errors) == 2, "three pages, two processes"
    assert found.away.keys() == {"agent-n1", "ztunnel-n1"}
    for file in ("agent.sock", "ztunnel.sock"):
        assert str(where / file) in " ".join(found.errors)


@pytest.mark.parametrize("parts", [("ztunnel",), ("agent", "ztunnel"), ("logging",)])
@pytest.mark.parametrize("ours", [False, True])
def test_a_ztunnel_of_another_make_is_not_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: tuple[str, ...], ours: bool
) -> None:
    node(tmp_path, "n1")
    status = {"ztunnels": [{"pid": 1, "ours": ours}]}

    def ask(asked: Mapping[MeshProcess, object], _timeout_s: float) -> dict[MeshProcess, Heard]:
        pages = {"agent": Heard({"agent": status}), "ztunnel": Heard(error="no such socket")}
        return {each: pages[each.kind] for each in asked}

    monkeypatch.setattr(processes, "ask", ask)
    found = mesh.read(MeshSource(tmp_path), parts)
    assert list(found.away) == (["ztunnel-n1"] if ours else [])
    assert bool(found.errors) is ours
    assert found.foreign == ([] if ours else ["n1"])
    shown = run("--run-dir", str(tmp_path), "connections")
    note = "note: of another make, and without a page here: ztunnel-n1\n"
    assert (note in shown.output, shown.exit_code) == ((False, 2) if ours else (True, 0))


def test_a_control_plane_alone_is_a_mesh(tmp_path: Path) -> None:
    (tmp_path / "control").mkdir()
    (tmp_path / "control" / "admin.sock").touch()
    found = mesh.read(MeshSource(tmp_path), ("agent", "control"))
    assert found.nodes == {}
    assert len(found.errors) == 1


def test_only_what_a_command_needs_can_be_missing() -> None:
    found = example()
    found.away = {"agent-n1": "", "ztunnel-n1": "", "control": ""}
    assert found.missing(["ztunnel"]) == ["ztunnel-n1"]
    assert found.missing(["check"]) == found.missing(["agent"]) == ["agent-n1"]
    assert found.missing(["logging"]) == ["agent-n1", "ztunnel-n1"]
    assert found.missing(["control"]) == ["control"]


def test_a_dump_comes_back_as_it_was(tmp_path: Path) -> None:
    saved = example()
    saved.errors = ["a part is away"]
    saved.away = {"agent-n3": "a part is away"}
    assert load_dump(Path(save(tmp_path, saved))) == saved


def test_a_dump_must_be_one(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    for text in ("{", "[]", '{"dumpVersion": 99}', '{"dumpVersion": 1}'):
        wrong.write_text(text)
        with pytest.raises(ConfigError, match="wrong: "):
            load_dump(wrong)
    with pytest.raises(ConfigError, match="absent: No such file"):
        load_dump(tmp_path / "absent")


@pytest.mark.parametrize("damage", [{"takenAt": "yesterday"}, {"errors": 7}, {"takenAt": None}])
def test_a_dump_without_its_frame_is_damaged(tmp_path: Path, damage: dict[str, object]) -> None:
    path = tmp_path / "frame"
    path.write_text(json.dumps({**example().as_json(), **damage}))
    with pytest.raises(ConfigError, match="frame: a damaged dump"):
        load_dump(path)


def test_the_dump_of_one_ztunnel_is_a_mesh_of_one_node(tmp_path: Path) -> None:
    path = tmp_path / "one"
    path.write_text(json.dumps({**ztunnel("n1", "a", "inbound"), "node": "n1"}))
    assert list(load_dump(path).nodes) == ["n1"]
    path.write_text(json.dumps(ztunnel("n1", "a", "inbound")))
    assert list(load_dump(path).nodes) == ["node"]


def test_labels_come_from_the_manifests_that_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.yaml").write_text(
        "kind: Namespace\nmetadata: {name: shop, labels: {mesh: 'on'}}\n---\n"
        "kind: Pod\nmetadata: {name: web, namespace: shop, labels: {app: web}}\n---\n"
        "kind: Service\nmetadata: {name: web, namespace: shop, labels: {app: other}}\n"
    )
    (tmp_path / "b.yml").write_text("kind: Namespace\nmetadata: {name: bare}\n")
    (tmp_path / "damaged.yaml").write_text("{")
    control = {"status": {"sources": ["kubernetes", str(tmp_path)]}}
    assert mesh.manifests_folder(control) == tmp_path
    assert read_labels(control) == {
        "namespace": {"shop": {"mesh": "on"}, "bare": {}},
        "pod": {"shop/web": {"app": "web"}},
    }


def test_without_a_folder_on_this_host_there_are_no_labels() -> None:
    for control in ({}, {"status": None}, {"status": {"sources": ["/not/here"]}}):
        assert read_labels(control) == {}
