"""The lab's state file: what is written comes back."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from agent.lab import plan
from agent.lab.process import Process
from agent.lab.spec import PodSpec, Ready
from agent.lab.state import LabState, PodRecord, Store, decode, remove_if_empty
from control.kit.errors import ConfigError


def example() -> LabState:
    spec = PodSpec("a", "p", "n1", ("x", "y"), "/", {"A": "b"}, ready=Ready(tcp=80))
    record = PodRecord(spec, "u", "ns", "pod1", plan.AddressPair("1", "2"), Process(7, 8))
    nodes = [plan.node_plan("l", "n1", 1, ("/opt/ztunnel", "proxy"))]
    return LabState("l", "/f", False, 1, "/c", nodes, {"a/p": record}, {"control": Process(1, 2)})


def test_state_survives_the_disk(tmp_path: Path) -> None:
    state, store = example(), Store(tmp_path)
    store.save(state)
    assert store.load() == state
    assert decode(json.loads(json.dumps(asdict(state)))) == state


def test_what_is_not_there_is_answered_with_what_is() -> None:
    state = example()
    assert state.node("n1").index == 1
    with pytest.raises(ConfigError, match="no node 'n2'; there are: n1"):
        state.node("n2")
    assert state.pod("a", "p").uid == "u"
    with pytest.raises(ConfigError, match="no pod 'b/p', perhaps 'a/p'; there are: a/p"):
        state.pod("b", "p")
    assert state.namespaces() == ["ns", "tl-l-n1", "tl-l-control", "tl-l-router"]


def test_a_lab_that_is_not_up_is_an_error_that_helps(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert not store.exists()
    with pytest.raises(ConfigError, match="tulle lab up DIR"):
        store.load()


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"nodes": 7, "pods": {}}', '{"pods": []}'])
def test_a_lab_of_another_version_is_an_error_that_names_the_file(
    tmp_path: Path, text: str
) -> None:
    (tmp_path / "lab.json").write_text(text)
    with pytest.raises(ConfigError, match=r"lab\.json: damaged, or of another version"):
        Store(tmp_path).load()


def test_forgetting_takes_a_half_written_file_along(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.save(example())
    (tmp_path / ".lab.json.abc").write_text("{")
    store.forget()
    assert list(tmp_path.iterdir()) == []


def test_the_run_folder_goes_when_the_last_command_leaves_it_empty(tmp_path: Path) -> None:
    store = Store(tmp_path / "run")
    with store.exclusive():
        assert store.run_dir.is_dir()
    assert not store.run_dir.exists()
    remove_if_empty(store.run_dir)  # absent: nothing to do
    with store.exclusive():
        store.save(example())
    assert store.exists()
