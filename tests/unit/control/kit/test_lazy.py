"""A library is loaded when it is used first."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from control.kit.lazy import lazy


def test_loads_at_the_first_attribute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "heavy_one.py").write_text("import loaded_marker\nanswer = 42\n")
    (tmp_path / "loaded_marker.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    try:
        module = lazy("heavy_one")
        assert "loaded_marker" not in sys.modules
        assert module.answer == 42
        assert "loaded_marker" in sys.modules
        assert lazy("heavy_one") is module
    finally:
        for name in ("heavy_one", "loaded_marker"):
            sys.modules.pop(name, None)


def test_a_missing_module_is_told_at_once() -> None:
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        lazy("no_such_module")


def test_a_control_plane_on_a_host_loads_no_http_client() -> None:
    code = "import sys, control.server.main, agent.cli.main\nprint('aiohttp.client' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
