"""Foreign programs about what we ship for clusters: promtool on alerts, shellcheck on scripts."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from daemonset.tools import render

ALERTS = render.CHART / "alerts.yaml"
SCRIPTS = [
    *sorted((render.ROOT / "vagrant").rglob("*.sh")),
    *(render.ROOT / "daemonset/image" / name for name in ("build", "check", "target")),
    *(render.ROOT / ".ci" / name for name in ("bootstrap", "fresh", "run")),
]


def program(name: str, package: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"no {name}: make ready-dev, or apt-get install {package}")
    return found


def checked(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_prometheus_takes_the_alerts_and_not_a_broken_one(tmp_path: Path) -> None:
    promtool = program("promtool", "prometheus")
    done = checked(promtool, "check", "rules", str(ALERTS))
    assert done.returncode == 0, done.stdout + done.stderr
    rules = yaml.safe_load(ALERTS.read_text())
    count = sum(len(each["rules"]) for each in rules["groups"])
    assert f"{count} rules found" in done.stdout
    rules["groups"][0]["rules"][0]["expr"] += " and ("
    broken = tmp_path / "broken.yaml"
    broken.write_text(yaml.safe_dump(rules))
    assert checked(promtool, "check", "rules", str(broken)).returncode != 0


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_script_can_be_read_and_has_no_known_trap(script: Path) -> None:
    shell = "bash" if "bash" in script.read_text().partition("\n")[0] else "sh"
    subprocess.run([shell, "-n", str(script)], check=True)
    shellcheck = program("shellcheck", "shellcheck")
    done = checked(shellcheck, "--severity", "warning", str(script))
    assert done.returncode == 0, done.stdout
