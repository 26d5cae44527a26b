"""`make manifests`: write all that is made from the chart; `--check` says what is out of date."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from daemonset.tools import boards, crds, readme, render

OWN = render.ROOT / ".venv/bin/helm"


def helm() -> str | None:
    """Helm of `make ready-dev`, or the host's."""
    return str(OWN) if OWN.exists() else shutil.which("helm")


def stale(made: dict[Path, str]) -> list[Path]:
    return [path for path, text in made.items() if not path.exists() or path.read_text() != text]


def main(arguments: list[str]) -> int:
    program = helm()
    if program is None:
        sys.stderr.write("manifests: no helm: make ready-dev\n")
        return 2
    found = []
    # In this order: the definitions and boards are files of the chart that Helm renders.
    for make in (crds.files, boards.files, readme.files, lambda: render.files(program)):
        try:
            wrong = stale(made := make())
        except subprocess.CalledProcessError as exc:
            sys.stderr.write(f"manifests: {exc.stderr}")
            return 2
        found += wrong
        if "--check" not in arguments:
            for path in wrong:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(made[path])
    for path in found:
        sys.stdout.write(f"{path.relative_to(render.ROOT)}\n")
    return 1 if found and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
