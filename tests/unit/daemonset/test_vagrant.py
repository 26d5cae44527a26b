"""The claims of the cluster's check.sh, against a stand-in of kubectl."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from daemonset.tools import render

CHECK = render.ROOT / "vagrant/cluster/check.sh"
# Answers of a mesh that works; a fault is one more case on top.
KUBECTL = r"""#!/bin/sh
says=" $* "
case $says in
FAULT
*"exec stranger"*) exit 1 ;;
*"//ratings:9080"*) exit 1 ;;
*"//details:9080"*) echo '{"client": "10.0.0.7"}' ;;
*"//productpage:9080"*) echo '{"reviews": {"ratings": {}}}' ;;
*"app=client"*) echo 10.0.0.7 ;;
*redirection*) echo enabled; echo enabled ;;
esac
exit 0
"""
FAULTS = {
    "": None,
    "the page comes from all services": """*"//productpage:9080"*) exit 1 ;;""",
    "servers see their client's address": """*"app=client"*) echo 10.0.0.8 ;;""",
    "pods say that they are captured": "*redirection*) echo enabled; echo ;;",
    "STRICT: a stranger is refused": """*"exec stranger"*) exit 0 ;;""",
    "STRICT: probes pass": """*"-l version --timeout"*) exit 1 ;;""",
    "policy: the client may not ask ratings": """*"//ratings:9080"*) exit 0 ;;""",
    "policy: reviews may": """*"//reviews:9080"*) exit 1 ;;""",
}


@pytest.mark.parametrize("claim", FAULTS)
def test_each_claim_can_fail_and_only_that(tmp_path: Path, claim: str) -> None:
    kubectl = tmp_path / "kubectl"
    kubectl.write_text(KUBECTL.replace("FAULT\n", f"{FAULTS[claim] or ''}\n"))
    kubectl.chmod(0o755)
    (tmp_path / "sleep").write_text("#!/bin/sh\n")  # its patience is not ours
    (tmp_path / "sleep").chmod(0o755)
    environment = {"KUBECTL": str(kubectl), "PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = subprocess.run(
        ["sh", str(CHECK)], env=environment, capture_output=True, text=True, timeout=30
    )
    failed = [
        line.removeprefix("FAILED  ") for line in done.stdout.splitlines() if "FAILED" in line
    ]
    if claim == "the page comes from all services":
        assert failed == [claim, "STRICT: the mesh goes on"]
    else:
        assert failed == ([claim] if claim else [])
    assert done.returncode == bool(claim)
    assert done.stdout.count("ok ") + len(failed) == 8
