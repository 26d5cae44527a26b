"""`tulle lab label`, `apply` and `delete` on the working copy of an empty lab."""

from __future__ import annotations

from pathlib import Path

import pytest

from control.kit.errors import ConfigError, MeshError
from tests.unit.agent.lab.verbs.conftest import Run

NAMESPACE = "kind: Namespace\nmetadata:\n  name: shop # the shop\n"
POLICY = "kind: PeerAuthentication\nmetadata: {name: default, namespace: shop}\n"


def test_objects_are_created_changed_and_left_alone(run: Run, run_dir: Path) -> None:
    file = run_dir / "mine.yaml"
    file.write_text(f"{NAMESPACE}---\n{POLICY}")
    result = run("apply", "-f", str(file))
    assert result.exit_code == 0, result.output
    assert result.stdout == "Namespace shop created\nPeerAuthentication shop/default created\n"
    assert "# the shop" in (run_dir / "manifests/mine.yaml").read_text()
    changed = POLICY + "spec: {mtls: {mode: STRICT}}\n"
    result = run("apply", "-f", "-", text=f"{NAMESPACE}---\n{changed}")
    assert result.stdout == "Namespace shop unchanged\nPeerAuthentication shop/default configured\n"


def test_labels_are_set_and_removed(run: Run, run_dir: Path) -> None:
    file = run_dir / "manifests/all.yaml"
    file.write_text(NAMESPACE)
    assert run("label", "namespace", "shop", "a=b").stdout == "Namespace shop labelled\n"
    assert "    a: b\n" in file.read_text()
    run("label", "namespace", "shop", "a-")
    assert "a: b" not in file.read_text()
    missing = run("label", "pod", "shop/web", "a=b")
    assert isinstance(missing.exception, ConfigError)
    assert "no Pod shop/web" in str(missing.exception)


def test_a_namespace_goes_with_its_contents(run: Run, run_dir: Path) -> None:
    (run_dir / "manifests/all.yaml").write_text(f"{NAMESPACE}---\n{POLICY}")
    lines = run("delete", "namespace", "shop").stdout.splitlines()
    assert lines == ["PeerAuthentication shop/default deleted", "Namespace shop deleted"]
    assert list((run_dir / "manifests").iterdir()) == []


def test_an_object_is_named_as_kubectl_names_it(run: Run, run_dir: Path) -> None:
    for words in (
        ("peerauthentications", "default"),
        ("PeerAuthentication/default",),
        ("peerauthentication", "default"),
    ):
        (run_dir / "manifests/all.yaml").write_text(POLICY)
        assert run("delete", "-n", "shop", *words).exit_code == 0, words
    absent = run("delete", "-n", "shop", "peerauthentication", "default")
    assert isinstance(absent.exception, MeshError)


def test_a_file_may_name_what_is_not_there(run: Run, run_dir: Path) -> None:
    (run_dir / "manifests/all.yaml").write_text(POLICY)
    result = run("delete", "-f", "-", text=f"{POLICY}---\n{NAMESPACE}")
    assert result.exit_code == 1
    assert result.stdout == "PeerAuthentication shop/default deleted\n"
    assert result.stderr == "error: no Namespace shop\n"


def test_wrong_words_are_usage_errors(run: Run, run_dir: Path) -> None:
    assert run("delete", "-f", "-", "pod", "x").exit_code == 2
    assert run("delete", "pod").exit_code == 2
    unreadable = run("apply", "-f", str(run_dir / "absent.yaml"))
    assert isinstance(unreadable.exception, ConfigError)


def test_a_label_that_is_not_there_is_named(run: Run, run_dir: Path) -> None:
    file = run_dir / "manifests/all.yaml"
    file.write_text(NAMESPACE)
    done = run("label", "namespace", "shop", "nosuch-")
    assert done.exit_code == 0
    assert done.stdout == "Namespace shop unchanged\n"
    assert done.stderr == "warning: Namespace shop has no label nosuch\n"
    assert run("label", "namespace", "shop", "a=b", "nosuch-").stdout == "Namespace shop labelled\n"
    assert run("label", "namespace", "shop", "a=b").stdout == "Namespace shop unchanged\n"
    assert "a: b" in file.read_text()


@pytest.mark.parametrize(
    ("namespace", "warned"), [("shop", False), ("shopp", True), ("istio-system", False)]
)
def test_a_namespace_that_nothing_stands_for_is_warned_of(
    run: Run, run_dir: Path, namespace: str, warned: bool
) -> None:
    (run_dir / "manifests/all.yaml").write_text(NAMESPACE)
    done = run("apply", "-f", "-", text=POLICY.replace("shop", namespace))
    assert done.exit_code == 0
    said = f"warning: no namespace {namespace} in this lab, and no pod in it\n"
    assert (said in done.stderr) == warned
