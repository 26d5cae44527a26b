"""`tulle-control token`: a node's token, and what is revoked."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from click.testing import CliRunner

from control.kit.clock import SystemClock
from control.model.route import WaypointKey
from control.server.ca.keys import load_token_key
from control.server.callers.budget import source_tenant
from control.server.callers.revocations import NAME, RevocationFile, fingerprint, load
from control.server.callers.tokens import NodeTokens, Unauthenticated
from control.server.main import main


def run(*arguments: str, **env: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, arguments, env=env)
    return result.exit_code, result.stdout, result.stderr


def test_a_token_is_good_for_its_node(tmp_path: Path) -> None:
    code, out, _ = run("token", "--node", "n1", "--state", str(tmp_path), "--ttl", "1h")
    assert code == 0
    subject = "system:serviceaccount:istio-system:ztunnel"
    tokens = NodeTokens(load_token_key(tmp_path), subject, SystemClock())
    assert asyncio.run(tokens.authenticate(out.strip(), source_tenant("::1"))).node == "n1"
    assert out == out.strip(), "a file of it is sent as it is by Istio's ztunnel"


def test_a_state_that_had_no_key_is_named(tmp_path: Path) -> None:
    state = ("--state", str(tmp_path / "typo"))
    _, out, err = run("token", "--node", "n1", *state)
    assert f"{tmp_path}/typo had no key" in err
    assert out.count(".") == 2, "the note is not in the file of the token"
    assert run("token", "--node", "n2", *state)[2] == ""


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


def test_a_token_of_a_waypoints_account(tmp_path: Path) -> None:
    state = ("token", "--state", str(tmp_path), "--node", "n1")
    code, out, _ = run(*state, "--service-account", "shop/waypoint")
    assert code == 0
    subject = "system:serviceaccount:istio-system:ztunnel"
    key = load_token_key(tmp_path)
    tokens = NodeTokens(key, subject, SystemClock(), is_waypoint=lambda _: True)
    caller = asyncio.run(tokens.authenticate(out, source_tenant("::1")))
    assert (caller.node, caller.waypoint) == ("n1", WaypointKey("shop", "waypoint"))


@pytest.mark.parametrize(
    "wrong",
    [("shop",), ("Shop/w",), ("shop/w/x",), ("istio-system/ztunnel",), ("shop/w", "--revoke")],
)
def test_what_is_no_account_of_a_waypoint_gets_no_token(
    tmp_path: Path, wrong: tuple[str, ...]
) -> None:
    code, out, err = run(
        "token", "--state", str(tmp_path), "--node", "n1", "--service-account", *wrong
    )
    assert (code != 0, out) == (True, "")
    assert "--service-account" in err
