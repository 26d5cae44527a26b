from __future__ import annotations

from pathlib import Path

import pytest

from agent.cli.chart import release, settings
from control.kit.errors import ConfigError

CHART = release.load()


def test_the_users_settings_lie_over_the_defaults() -> None:
    found = settings.settings(CHART, ["image.tag=20", "controlPlane.nodeSelector.disk=ssd"])
    assert found["image"]["tag"] == "20"  # text is wanted there
    assert found["image"]["repository"] == "tulle"
    assert found["controlPlane"]["nodeSelector"] == {"disk": "ssd"}


def test_null_takes_a_default_away() -> None:
    own = settings.given(CHART, ["scheduling.nodeSelector=null"])
    assert "nodeSelector" not in settings.whole(CHART, own)["scheduling"]


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("cni.confdir=/x", "no setting cni.confdir; did you mean cni.confDir"),
        ("profile=huge", "profile: 'huge' is not one of"),
        ("ztunnel.workers=99", "ztunnel.workers: 99 is not from 0 to 32"),
    ],
)
def test_a_wrong_setting_is_refused_by_its_name(word: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        settings.settings(CHART, [word])


def test_a_file_of_settings(tmp_path: Path) -> None:
    path = tmp_path / "values.yaml"
    path.write_text("image: {tag: a}\nprofile: ha\n")
    own = settings.given(CHART, ["image.tag=b"], settings.read(path))
    assert own == {"image": {"tag": "b"}, "profile": "ha"}


@pytest.mark.parametrize("text", ["- a", "a: [", "text", "\x00"])
def test_a_file_that_holds_no_settings_is_refused_by_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "values.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"values\.yaml"):
        settings.read(path)


def test_settings_of_before_and_those_of_now() -> None:
    assert settings.merged({"a": {"b": 1, "c": 2}}, {"a": {"b": None}, "d": 3}) == {
        "a": {"b": None, "c": 2},
        "d": 3,
    }
