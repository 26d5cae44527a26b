"""Checks of a running agent."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from agent.checks import node
from agent.checks.check import Check, Result
from agent.cni.part import CniPart
from agent.config import CniConfig
from agent.cri.follow import RuntimeFollower
from agent.datapath.audit import Difference, LostPart
from agent.datapath.conflicts import Conflict
from agent.kubelet.finder import Kubelet
from agent.kubelet.reasons import Unrecognised
from agent.kubelet.watch import Sight
from bpf.layout import MAPS, MapType
from tests.unit.agent.agent_example import example, intent

NOW = datetime(2026, 1, 2, 12, tzinfo=UTC)


@pytest.mark.parametrize("name", [*MAPS, "flows", "of another version"])
def test_a_table_that_refuses_is_told_of_before_it_is_full_and_one_that_forgets_once_it_is(
    name: str,
) -> None:
    levels = [(name, 79, 100), (name, 80, 100), (name, 99, 100), (name, 100, 100), (name, 0, 0)]
    found = list(node.map_pressure(levels))
    is_forgetful = name in MAPS and MAPS[name].type is MapType.LRU_HASH
    wanted = "ok ok ok warning ok" if is_forgetful else "ok warning warning error ok"
    assert " ".join(each.result.value for each in found) == wanted
    assert {each.code for each in found} == {"TUL0901"}
    assert ("oldest" in found[3].hint) == is_forgetful


def checks_of(agent: Any) -> dict[str, Check]:
    """The agent's own checks by code, without those of the host."""
    found = [
        node._conflicts(agent),
        node._ztunnel(agent),
        node._direct(agent),
        node._kubelet(agent),
        asyncio.run(node._certificates(agent)),
        *node._control(agent),
        node._pods(agent),
        node._kernel(agent),
        *node._runtime(agent),
        *node._cni(agent),
    ]
    return {each.code: each for each in found}


def test_an_agent_without_a_mesh_says_what_is_missing(tmp_path: Path) -> None:
    found = checks_of(example(tmp_path))
    assert found["TUL0601"].result is Result.OK
    assert found["TUL0701"].error == "none; 1 captured pods refuse all connections"
    assert found["TUL0703"].description.endswith("(switched off)")
    assert found["TUL0703"].result is Result.OK
    assert found["TUL0702"].result is Result.WARNING
    assert "ztunnel.sock" in found["TUL0702"].error
    assert (found["TUL0801"].error, found["TUL0802"].error) == ("not yet", "none received yet")
    assert found["TUL1001"].result is Result.OK


def test_a_foreign_program_on_a_hook_is_named(tmp_path: Path) -> None:
    agent: Any = example(tmp_path)
    agent.datapath.found = [
        Conflict("connect4", 7, "cil_sock4_connect", False),
        Conflict("connect4", 8, "tulle_connect4", True),
    ]
    found = checks_of(agent)["TUL0601"]
    assert (found.result, found.error) == (Result.WARNING, "cil_sock4_connect (connect4)")


def test_a_pod_that_failed_is_named_with_its_reason(tmp_path: Path) -> None:
    agent: Any = example(tmp_path)
    agent.enroller.facts.book.released("u1", 0.0)
    agent.enroller.facts.book.failed("u1", "map_full", 0.0)
    assert checks_of(agent)["TUL1001"].error == "u1: map_full"


def test_certificates_that_cannot_be_read_are_no_silent_pass(tmp_path: Path) -> None:
    agent: Any = example(tmp_path)
    agent.config.folder.mkdir(parents=True)
    (agent.config.folder / "ztunnel.sock").touch()
    found = checks_of(agent)["TUL0702"]
    assert found.result is Result.ERROR
    assert "no certificates could be read" in found.error


def test_a_runtime_that_is_away_and_pods_that_it_names_in_vain_are_shown(tmp_path: Path) -> None:
    agent = example(tmp_path)
    assert "TUL1002" not in checks_of(agent)
    runtime = RuntimeFollower(agent.enroller, lambda: True, agent.clock, [tmp_path / "absent"])
    found = checks_of(replace(agent, runtime=runtime))
    assert (found["TUL1002"].result, found["TUL1002"].error) == (Result.WARNING, "not asked yet")
    assert found["TUL1003"].result is Result.OK
    runtime.link.error, runtime.link.name = "", "containerd 2.1.9"
    runtime._failures["id"] = "shop/web: open /run/netns/x: No such file or directory"
    found = checks_of(replace(agent, runtime=runtime))
    assert found["TUL1002"].description == "the container runtime answers (containerd 2.1.9)"
    assert found["TUL1003"].error == "shop/web: open /run/netns/x: No such file or directory"


def test_a_kubelet_is_missed_only_where_pods_have_probes(tmp_path: Path) -> None:
    agent: Any = example(tmp_path)
    sight(agent, Unrecognised.NOT_LISTENING)
    found = checks_of(agent)["TUL0704"]
    assert (found.result, found.description[-12:]) == (Result.OK, "(no kubelet)")
    agent.enroller.intents_changed({"u2": intent("u2", "db", probe_ports=(80,))}, [])
    found = checks_of(agent)["TUL0704"]
    assert found.result is Result.WARNING
    assert found.error.endswith("under STRICT the probes of 1 pods fail")
    assert "--kubelet-port" in found.hint


def test_a_kubelet_that_may_not_be_recognised_is_a_warning(tmp_path: Path) -> None:
    agent: Any = example(tmp_path)
    for reason in set(Unrecognised) - {Unrecognised.NOT_LISTENING, Unrecognised.OFF}:
        sight(agent, reason)
        found = checks_of(agent)["TUL0704"]
        assert (found.result, found.hint) == (Result.WARNING, reason.remedy)


def test_strangers_in_the_kubelets_cgroup_are_named_and_a_runtime_is_none(tmp_path: Path) -> None:
    agent: Any = example(tmp_path)
    sight(agent, Kubelet(7, tmp_path, ("containerd-shim",)))
    assert checks_of(agent)["TUL0704"].result is Result.OK
    sight(agent, Kubelet(7, tmp_path, ("bash", "containerd-shim")))
    found = checks_of(agent)["TUL0704"]
    assert (found.result, found.error[-6:]) == (Result.WARNING, ": bash")


def sight(agent: Any, seen: Kubelet | Unrecognised) -> None:
    is_kubelet = isinstance(seen, Kubelet)
    agent.kubelet.sight = Sight(seen if is_kubelet else None, None if is_kubelet else seen, NOW)


def test_a_lost_capture_is_a_warning_for_a_day_and_an_error_while_it_stands(tmp_path: Path) -> None:
    agent: Any = example(tmp_path)
    assert checks_of(agent)["TUL1004"].result is Result.OK
    compared, lost = agent.enroller.compared, Difference(LostPart.LINK, "link", "u1")
    compared.last, compared.last_at = (lost,), agent.clock.now()
    compared.last_at_s = agent.clock.monotonic_s()
    found = checks_of(agent)["TUL1004"]
    assert found.result is Result.WARNING
    assert found.error.endswith("u1: pod_link_lost (link)")
    agent.clock.pass_s(25 * 3600.0)
    assert checks_of(agent)["TUL1004"].result is Result.OK
    compared.standing = (lost,)
    assert checks_of(agent)["TUL1004"].result is Result.ERROR
    compared.standing, compared.error = (), "not permitted"
    assert checks_of(agent)["TUL1004"].error == "not permitted"


def test_a_configuration_of_ours_that_is_not_the_first_is_an_error(tmp_path: Path) -> None:
    agent = example(tmp_path)
    assert "TUL1005" not in checks_of(agent), "a host without Kubernetes"
    runtime = RuntimeFollower(agent.enroller, lambda: True, agent.clock, [tmp_path / "absent"])
    off = checks_of(replace(agent, runtime=runtime))["TUL1005"]
    assert (off.result, "plugin is off" in off.error) == (Result.WARNING, True)
    chosen = CniConfig(host_prefix=tmp_path, state_dir=tmp_path)
    cni = CniPart(chosen, "n1", tmp_path, agent.clock)
    cni.keeper.look()
    found = checks_of(replace(agent, cni=cni))["TUL1005"]
    assert found.result is Result.ERROR
    assert found.error == f"no configuration of a primary CNI is in {tmp_path}/etc/cni/net.d"
    cni.keeper.is_kept = True
    assert checks_of(replace(agent, cni=cni))["TUL1005"].result is Result.OK
    cni.keeper.uninstall()
    assert "by request" in checks_of(replace(agent, cni=cni))["TUL1005"].error
