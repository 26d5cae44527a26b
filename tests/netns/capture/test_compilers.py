"""Every hook, made by every clang at hand, at every level: the kernel's verifier takes each."""

from __future__ import annotations

import pytest

from agent.datapath import programs
from agent.datapath.dry_load import dry_load_image
from tests.support.kernel import clang

CLANGS = clang.installed()
# The levels, instruction sets and feature sets under which one compiler folds differently.
WAYS = {
    "as BCC does": ("-O2", "v1", True),
    "newer instructions": ("-O2", "v3", True),
    "more inlining": ("-O3", "v3", True),
    "small": ("-Os", "v1", True),
    "no feature of the kernel": ("-O2", "v1", False),
}


def test_several_compilers_are_at_hand() -> None:
    assert len(CLANGS) >= 2, "install two of the clang-N that this host has"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("version", CLANGS)
def test_the_verifier_takes_every_hook(version: int, way: str) -> None:
    level, cpu, featured = WAYS[way]
    features = programs.kernel_features() if featured else ()
    image = clang.compile_image(CLANGS[version], (level, f"-mcpu={cpu}"), features)
    checks = dry_load_image(image)
    assert {each.name: each.verifier_log for each in checks if not each.ok} == {}
    assert {each.name for each in checks} == set(programs.HOOKS)
