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


def test_the_folder_of_all_pins_goes_with_the_last_node_of_the_host(tmp_path: Path) -> None:
    pins = tmp_path / "bpf" / "tulle"
    (pins / "n2").mkdir(parents=True)
    uninstall("n1", tmp_path / "run", tmp_path / "bpf", tmp_path / "cgroup", tmp_path)
    assert (pins / "n2").is_dir()
    (pins / "n2").rmdir()
    uninstall("n1", tmp_path / "run", tmp_path / "bpf", tmp_path / "cgroup", tmp_path)
    assert not pins.exists()
    assert pins.parent.is_dir()
