"""Regenerate all protobuf stubs next to their sources: `python -m control.wire.generate`.

`--check` writes nothing and fails when a committed stub differs from the generated one. Needs
grpcio-tools (a development dependency); the product never imports this.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("control/wire", "agent/cri")  # folders with sources


def generate(target: Path) -> None:
    from importlib.resources import files

    from grpc_tools import protoc

    sources = [
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in sorted((ROOT / package).glob("*.proto"))
    ]
    well_known = str(files("grpc_tools") / "_proto")
    arguments = ["protoc", f"-I{ROOT}", f"-I{well_known}"]
    arguments += [f"--python_out={target}", f"--pyi_out={target}", *sources]
    if protoc.main(arguments) != 0:
        raise SystemExit("protoc failed")


def main() -> None:
    if "--check" not in sys.argv[1:]:
        generate(ROOT)
        return
    with tempfile.TemporaryDirectory() as scratch:
        generate(Path(scratch))
        stale = [
            path.name
            for path in sorted(Path(scratch).rglob("*_pb2.py*"))
            if (ROOT / path.relative_to(scratch)).read_bytes() != path.read_bytes()
        ]
    if stale:
        raise SystemExit(f"stale stubs, run python -m control.wire.generate: {', '.join(stale)}")


if __name__ == "__main__":
    main()
