"""Every verb of the lab with what does not exist: not 0, and one line that names it."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from agent.cli.main import main
from agent.lab.verbs.group import lab

# Verb -> words that do not exist, and a word that the error must hold.
UNKNOWN = {
    "up": [(("/absent",), "/absent"), ((".", "--nodes", "0"), "0"), ((".", "--workers", "x"), "x")],
    "down": [(("extra",), "extra")],
    "exec": [
        (("typo", "true"), "default/typo"),
        (("-n", "typo", "web", "true"), "typo/web"),
        (("shop/typo", "true"), "shop/typo"),
    ],
    "status": [(("-o", "xml"), "xml")],
    "label": [
        (("node", "n1", "a=b"), "node"),
        (("namespace", "typo", "a=b"), "typo"),
        (("pod", "typo/web", "a=b"), "typo/web"),
        (("pod", "web", "a=b", "-n", "typo"), "typo/web"),
        (("namespace", "shop", "a b"), "a b"),
        (("namespace", "shop", "-=b"), "-"),
    ],
    "apply": [(("-f", "/absent.yaml"), "/absent.yaml"), (("-f", "/"), "/")],
    "delete": [
        (("-f", "/absent.yaml"), "/absent.yaml"),
        (("pod", "typo", "-n", "shop"), "shop/typo"),
        (("pod", "web", "-n", "typo"), "typo/web"),
        (("gadget", "web"), "gadget"),
    ],
    "logs": [
        (("typo",), "default/typo"),
        (("web", "-n", "typo"), "typo/web"),
        (("ztunnel-n9",), "ztunnel-n9"),
    ],
    "restart": [(("kubelet",), "kubelet"), (("agent", "n9"), "n9")],
    "stop": [(("kubelet",), "kubelet"), (("ztunnel", "n9"), "n9")],
    "kill": [(("kubelet",), "kubelet"), (("agent", "n9"), "n9")],
}


def test_every_verb_has_its_rows() -> None:
    assert UNKNOWN.keys() == lab.commands.keys()
    for name, command in lab.commands.items():
        words = {word for row, _ in UNKNOWN[name] for word in row}
        for each in command.params:
            is_flag = getattr(each, "is_flag", False)
            if isinstance(each, click.Option) and not is_flag and each.name != "help":
                assert words & {*each.opts}, (name, each.name)


@pytest.mark.parametrize(
    ("verb", "words", "told"),
    [(verb, words, told) for verb, rows in UNKNOWN.items() for words, told in rows],
)
def test_what_does_not_exist_is_named(
    run_dir: Path,
    verb: str,
    words: tuple[str, ...],
    told: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (run_dir / "manifests/all.yaml").write_text("kind: Namespace\nmetadata: {name: shop}\n")
    with pytest.raises(SystemExit) as ended:
        main(words=["--run-dir", str(run_dir), "lab", verb, *words])
    said = capsys.readouterr()
    assert ended.value.code in (1, 2), said
    assert told in said.err
    assert "Traceback" not in said.err
    assert not said.out
