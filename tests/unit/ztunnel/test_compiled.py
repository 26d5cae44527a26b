"""Compiled modules are used if, and only if, they were made from the sources that are there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import ztunnel.hbone.session
import ztunnel.transport.relay
from ztunnel.compiled import COMPILED, FOLDER, MANIFEST, abi, decide, fingerprints, why_not


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("ztunnel/relay.py", "control/model/policy.py", "agent/main.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        path.write_text("VALUE = 1\n")
    build(tmp_path)
    return tmp_path


def build(root: Path, for_abi: str = abi()) -> None:
    folder = root / "ztunnel/_compiled"
    folder.mkdir(exist_ok=True)
    (folder / MANIFEST).write_text(json.dumps({"abi": for_abi, "sources": fingerprints(root)}))


def verdict(root: Path) -> str:
    return why_not(root / "ztunnel/_compiled", root)


def test_what_was_made_from_the_same_sources_is_used(root: Path) -> None:
    assert verdict(root) == ""
    (root / "agent/main.py").write_text("VALUE = 2\n")
    assert verdict(root) == "", "no compiled module reads the agent"


@pytest.mark.parametrize("source", ["ztunnel/relay.py", "control/model/policy.py"])
def test_a_changed_source_makes_it_stale(root: Path, source: str) -> None:
    (root / source).write_text("VALUE = 2\n")
    assert verdict(root) == f"stale: {source} has changed"


def test_a_source_more_or_less_makes_it_stale(root: Path) -> None:
    (root / "ztunnel/new.py").touch()
    assert verdict(root) == "stale: ztunnel/new.py has changed"
    (root / "ztunnel/new.py").unlink()
    (root / "ztunnel/relay.py").unlink()
    assert verdict(root) == "stale: ztunnel/relay.py has changed"


def test_another_python_has_no_use_for_it(root: Path) -> None:
    build(root, for_abi=".other.so")
    assert verdict(root) == "built for .other.so"


def test_an_unfinished_build_is_none(root: Path) -> None:
    (root / "ztunnel/_compiled" / MANIFEST).unlink()
    assert verdict(root) == "not built"


def test_the_switch(root: Path) -> None:
    folder = root / "ztunnel/_compiled"
    assert decide("", folder, root) == decide("yes", folder, root) == "yes"
    assert decide("no", folder, root) == "no (switched off)"
    (root / "ztunnel/relay.py").write_text("VALUE = 2\n")
    assert decide("", folder, root) == "no (stale: ztunnel/relay.py has changed)"
    with pytest.raises(ImportError, match="TULLE_COMPILED=yes, but"):
        decide("yes", folder, root)


def test_what_this_process_runs_is_what_it_says() -> None:
    for module in (ztunnel.transport.relay, ztunnel.hbone.session):
        assert module.__file__ is not None
        assert Path(module.__file__).is_relative_to(FOLDER) == (COMPILED == "yes")
