"""The uninstaller on folders without a kernel half."""

from __future__ import annotations

from pathlib import Path

from agent.uninstall import uninstall


def test_the_uninstaller_leaves_files_of_others(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "n1"
    (folder / "state").mkdir(parents=True)
    for name in ("agent.sock", "zds.sock", "state/u1.json", "ztunnel.sock"):
        (folder / name).touch()
    uninstall("n1", tmp_path / "run", tmp_path / "bpf", tmp_path / "cgroup", tmp_path)
    assert [path.name for path in folder.iterdir()] == ["ztunnel.sock"]
    (folder / "ztunnel.sock").unlink()
    uninstall("n1", tmp_path / "run", tmp_path / "bpf", tmp_path / "cgroup", tmp_path)
    assert not folder.exists()
