"""The words of `tulle install` and `tulle upgrade`; their work is tested on a cluster beside
`agent.cli.cluster.install`."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.unit.agent.cli.verbs import run


def image(*words: str) -> tuple[str, str]:
    """(image, CPU request) of the agent that these words make, without a cluster."""
    done = run("install", "--dry-run", "-o", "yaml", "--kubeconfig", "/nonexistent", *words)
    assert done.exit_code == 0, done.output
    for each in yaml.safe_load_all(done.stdout):
        if (each["kind"], each["metadata"]["name"]) == ("DaemonSet", "tulle-agent"):
            container = each["spec"]["template"]["spec"]["containers"][0]
            return container["image"], container["resources"]["requests"]["cpu"]
    raise AssertionError("no agent")


def test_a_word_wins_over_a_file_and_a_later_file_over_an_earlier(tmp_path: Path) -> None:
    first, second = tmp_path / "1.yaml", tmp_path / "2.yaml"
    first.write_text("image: {repository: one, tag: a}\n")
    second.write_text("image: {repository: two}\n")
    files = ["-f", str(first), "-f", str(second)]
    assert image(*files)[0] == "two:a"
    assert image(*files, "--set", "image.tag=b")[0] == "two:b"


@pytest.mark.parametrize(("profile", "cpu"), [("demo", "20m"), ("default", "50m"), ("ha", "100m")])
def test_a_profile_is_a_size(profile: str, cpu: str) -> None:
    assert image("--profile", profile)[1] == cpu


@pytest.mark.parametrize("verb", ["install", "upgrade"])
def test_wrong_words_are_refused(verb: str) -> None:
    assert run(verb, "--profile", "huge").exit_code == 2
    assert run(verb, "--set", "image").exit_code == 1
    assert run(verb, "-f", "/nonexistent").exit_code == 1
