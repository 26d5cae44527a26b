"""The command line: flags, `check`."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from control.server.compile.settings import Settings
from control.server.main import main
from control.server.plane import PlaneConfig
from tests.support.manifests import pod, policy


def run(*arguments: str, **env: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, arguments, env=env)
    return result.exit_code, result.stdout, result.stderr


def test_help_names_every_flag_and_its_variable() -> None:
    code, out, _ = run("--help")
    assert code == 0
    for flag in ("--manifests", "--state", "--listen", "--dns-name", "--cert-ttl-max", "--admin"):
        assert flag in out
        assert "TULLE_CONTROL_" + flag[2:].replace("-", "_").upper() in out
    assert "Examples:" in out


def test_check_says_where_what_and_why(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(pod())
    assert run("check", "--manifests", str(tmp_path)) == (0, "", "0 problems, 1 object\n")
    path.write_text(pod() + policy("{rules: [{to: [{operation: {ports: ['x']}}]}]}"))
    code, out, _ = run("check", TULLE_CONTROL_MANIFESTS=str(tmp_path))
    assert code == 1
    assert out.startswith(f"{path}:13: AuthorizationPolicy shop/p: spec.rules[0].to[0]")
    assert out.rstrip().endswith("(invalid)")
    assert run("check", "--manifests", str(tmp_path / "nowhere"))[0] == 2


def test_check_tells_what_layer_4_cannot_do(tmp_path: Path) -> None:
    text = policy("{rules: [{to: [{operation: {methods: [GET]}}]}]}")
    (tmp_path / "a.yaml").write_text(text)
    code, _, err = run("check", "--manifests", str(tmp_path))
    assert code == 0
    assert "layer 4 cannot check methods" in err


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


def test_the_ports_names_are_those_given_and_the_addresses_it_listens_on(tmp_path: Path) -> None:
    config = PlaneConfig(
        manifests=tmp_path,
        state=tmp_path,
        listen=("10.0.0.1:1", "[fd00::1]:1", "[::]:2", "0.0.0.0:3"),
        dns_names=("a",),
        admin="",
        metrics="",
        cert_ttl_max=timedelta(hours=1),
        settings=Settings(),
    )
    assert config.serving_names() == ["a", "10.0.0.1", "fd00::1", "127.0.0.1", "::1"]
