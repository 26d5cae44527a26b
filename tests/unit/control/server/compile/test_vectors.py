"""The same manifests give the same messages as istiod gives (tests/vectors/istiod)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from google.protobuf import json_format

from control.server.compile.mesh import compile_mesh
from control.server.compile.settings import Settings
from control.server.sources.folder import Folder
from control.wire import convert, convert_policy, security_pb2, workload_pb2

VECTORS = Path(__file__).parents[4] / "vectors" / "istiod"


@pytest.mark.parametrize("path", sorted(VECTORS.glob("*.yaml")), ids=lambda path: path.stem)
def test_ours_equals_istiods(path: Path) -> None:
    folder = Folder()
    folder.load(path.name, path.read_bytes())
    snapshot = folder.snapshot()
    assert snapshot.problems == ()
    mesh = compile_mesh(snapshot.objects, Settings(), frozenset())
    expected = json.loads(path.with_suffix(".json").read_text())
    addresses = {**mesh.workloads, **mesh.services}
    assert sorted(addresses) == sorted(each["name"] for each in expected["Address"])
    for each in expected["Address"]:
        theirs = json_format.ParseDict(each["resource"], workload_pb2.Address())
        ours = convert.resource_to_wire(addresses[each["name"]])
        assert ours == theirs, each["name"]
        assert ours.SerializeToString(deterministic=True) == theirs.SerializeToString(
            deterministic=True
        )
    assert sorted(mesh.policies) == sorted(each["name"] for each in expected["Authorization"])
    for each in expected["Authorization"]:
        theirs_policy = json_format.ParseDict(each["resource"], security_pb2.Authorization())
        assert convert_policy.policy_to_wire(mesh.policies[each["name"]]) == theirs_policy
