"""The policies of the tour are understood whole, and say what the tour claims."""

from __future__ import annotations

import pytest

from agent.lab.tour import policies
from control.model.policy import Action
from control.server.compile.mesh import compile_mesh
from control.server.compile.settings import Settings
from control.server.sources.folder import Folder

TEXTS = {name: text for name, text in vars(policies).items() if name.isupper()}


def test_there_are_some() -> None:
    assert len(TEXTS) >= 5


@pytest.mark.parametrize("name", TEXTS)
def test_the_control_plane_understands_each_of_them(name: str) -> None:
    folder = Folder()
    folder.load(f"{name}.yaml", TEXTS[name].encode())
    snapshot = folder.snapshot()
    assert not snapshot.problems
    mesh = compile_mesh(snapshot.objects, Settings(), frozenset())
    assert len(mesh.policies) == 1
    (policy,) = mesh.policies.values()
    assert policy.action is (
        Action.ALLOW if name in ("RATINGS_FROM_REVIEWS", "DENY_ALL") else Action.DENY
    )
