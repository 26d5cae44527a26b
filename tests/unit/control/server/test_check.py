"""`tulle-control check`."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from control.server.main import main
from tests.support.manifests import pod, policy


def run(*arguments: str, **env: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, arguments, env=env)
    return result.exit_code, result.stdout, result.stderr


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
