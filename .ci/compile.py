"""Compile the ztunnel's hot modules with mypyc into ztunnel/_compiled (see ztunnel/compiled.py)."""

from __future__ import annotations

import json
import os
import shutil
import sys
import sysconfig
from importlib.util import source_hash
from pathlib import Path

from mypy.version import __version__ as mypy_version
from mypyc.build import mypycify
from setuptools import Distribution

ROOT = Path(__file__).resolve().parents[1]
# The rooms that a connection and its bytes pass through.
HOT = ("loop", "mesh", "tenants", "telemetry", "transport", "connections", "direct", "hbone")
# Left as they are: code that runs once, or at a push (nothing to gain), and code mypyc refuses: a
# generic class with slots (table), a class whose base is written in C (dice).
LEFT_OUT = {"loop/timeslice", "mesh/entries", "mesh/dice", "mesh/state", "mesh/table"}


def modules() -> list[str]:
    """Paths of the sources to compile, in a fixed order."""
    found = [path for room in HOT for path in Path("ztunnel", room).glob("[!_]*.py")]
    return sorted(str(path) for path in found if f"{path.parent.name}/{path.stem}" not in LEFT_OUT)


def main() -> None:
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    os.environ["TULLE_COMPILED"] = "no"  # it is the sources that are read
    from ztunnel.compiled import FOLDER, MANIFEST, fingerprints, why_not

    recipe = f"mypy {mypy_version}, {source_hash(Path(__file__).read_bytes()).hex()}"
    if (
        not why_not(FOLDER, ROOT)
        and json.loads((FOLDER / MANIFEST).read_bytes()).get("recipe") == recipe
    ):
        sys.stderr.write("compile: made from these sources already\n")
        return
    if not Path(sysconfig.get_paths()["include"], "Python.h").exists():
        raise SystemExit("compile: Python.h is missing (Debian: apt-get install python3-dev)")
    # Before the compiler reads them: what changes meanwhile makes the result stale, not wrong.
    # The suffix is that of the Python compiled for: an image may be for another architecture.
    manifest = {
        "abi": sysconfig.get_config_var("EXT_SUFFIX"),
        "recipe": recipe,
        "sources": fingerprints(ROOT),
    }
    build = Path("build/compiled")
    shutil.rmtree(build, ignore_errors=True)
    extensions = mypycify(
        modules(),
        opt_level="2",
        debug_level="0",
        group_name="ztunnel.group",
        target_dir=str(build / "c"),
    )
    step = Distribution({"name": "ztunnel", "ext_modules": extensions}).get_command_obj("build_ext")
    step.build_lib = str(build / "lib")
    step.build_temp = str(build / "objects")
    step.ensure_finalized()
    step.run()
    shutil.rmtree(FOLDER, ignore_errors=True)
    shutil.copytree(build / "lib" / "ztunnel", FOLDER)
    (FOLDER / MANIFEST).write_text(json.dumps(manifest, indent=1))


if __name__ == "__main__":
    main()
