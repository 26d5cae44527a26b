"""The flags of `serve`."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from control.server.main import main


def run(*arguments: str, **env: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, arguments, env=env)
    return result.exit_code, result.stdout, result.stderr


def test_serving_without_a_folder_fails_with_a_word(tmp_path: Path) -> None:
    missing = str(tmp_path / "nowhere")
    code, _, _ = run("--manifests", missing, "--state", str(tmp_path / "s"))
    assert code == 2


@pytest.mark.parametrize("flag", ["--listen", "--metrics"])
def test_a_port_that_is_none_is_refused_before_anything_is_made(tmp_path: Path, flag: str) -> None:
    state = tmp_path / "s"
    code, _, err = run("--manifests", str(tmp_path), "--state", str(state), flag, "off")
    assert (code, state.exists()) == (2, False)
    assert f"'{flag}'" in err
    assert "must be ADDRESS:PORT" in err


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        ((), "exactly one of"),
        (("--kubernetes", "--manifests", "."), "exactly one of"),
        (("--manifests", ".", "--kubeconfig", "x"), "are for --kubernetes"),
        (("--manifests", ".", "--context", "x"), "are for --kubernetes"),
    ],
)
def test_objects_have_one_source(flags: tuple[str, ...], why: str) -> None:
    code, _, err = run("serve", *flags)
    assert code == 2
    assert why in err


def test_a_kubeconfig_that_cannot_be_used_fails_with_a_word(tmp_path: Path) -> None:
    missing = ("--kubernetes", "--kubeconfig", str(tmp_path / "nowhere"))
    code, _, err = run("serve", *missing, "--state", str(tmp_path / "s"))
    assert code == 2
    assert "nowhere" in err
    assert not (tmp_path / "s").exists()
