"""The command line: flags, `token`, `check`."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from control.kit.clock import SystemClock
from control.server.ca.keys import load_token_key
from control.server.callers.budget import source_tenant
from control.server.callers.revocations import NAME, RevocationFile, fingerprint, load
from control.server.callers.tokens import NodeTokens, Unauthenticated
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
    assert run("check", "--manifests", str(tmp_path))[0] == 0
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


def test_a_token_is_good_for_its_node(tmp_path: Path) -> None:
    code, out, _ = run("token", "--node", "n1", "--state", str(tmp_path), "--ttl", "1h")
    assert code == 0
    subject = "system:serviceaccount:istio-system:ztunnel"
    tokens = NodeTokens(load_token_key(tmp_path), subject, SystemClock())
    assert asyncio.run(tokens.authenticate(out.strip(), source_tenant("::1"))).node == "n1"
    assert out == out.strip(), "a file of it is sent as it is by Istio's ztunnel"


def test_tokens_are_revoked_one_by_one_or_by_node(tmp_path: Path) -> None:
    state = ("token", "--state", str(tmp_path))
    _, one, _ = run(*state, "--node", "n1")
    _, other, _ = run(*state, "--node", "n1", "--ttl", "2d")
    file = tmp_path / "n1.token"
    file.write_text(one)
    assert run(*state, "--revoke-token", str(file)) == (0, "", "")
    assert set(load(tmp_path / NAME).tokens) == {fingerprint(one.strip())}
    assert run(*state, "--node", "n1", "--revoke") == (0, "", "")
    revoked = RevocationFile(tmp_path / NAME)
    subject = "system:serviceaccount:istio-system:ztunnel"
    tokens = NodeTokens(load_token_key(tmp_path), subject, SystemClock(), revoked.now)
    for each in (one, other):
        with pytest.raises(Unauthenticated):
            asyncio.run(tokens.authenticate(each.strip(), source_tenant("::1")))
    _, fresh, _ = run(*state, "--node", "n1")
    assert asyncio.run(tokens.authenticate(fresh.strip(), source_tenant("::1"))).node == "n1"


def test_a_revocation_that_would_revoke_nothing_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("stolen")
    state, file = ("token", "--state", str(tmp_path)), str(tmp_path / "token")
    code, _, err = run(*state, "--node", "n1", "--revoke")
    assert (code, "no control plane" in err) == (1, True)
    assert not (tmp_path / "token-key").exists()
    run(*state, "--node", "n1")
    code, _, err = run(*state, "--revoke-token", file)
    assert (code, "not a token that could be used" in err) == (1, True)
    for wrong in ((), ("--revoke",), ("--node", "n", "--revoke-token", file)):
        assert run(*state, *wrong)[0] == 2
    assert run(*state, "--node", "a b", "--revoke")[0] == 1
    assert not (tmp_path / NAME).exists()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is not a duration"),
        ("1w", "is not a duration"),
        ("-1h", "is not a duration"),
        ("0h", "at least 1s"),
        ("4000d", "at most"),
    ],
)
def test_a_life_that_makes_no_sense_is_refused(text: str, why: str, tmp_path: Path) -> None:
    code, _, err = run("token", "--node", "n", "--state", str(tmp_path), f"--ttl={text}")
    assert code == 2
    assert why in err


def test_serving_without_a_folder_fails_with_a_word(tmp_path: Path) -> None:
    missing = str(tmp_path / "nowhere")
    code, _, _ = run("--manifests", missing, "--state", str(tmp_path / "s"))
    assert code == 2


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
