"""The CNI part of an agent: its entry in the list, its marker, its pages."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from agent.cni.part import BOOT_ID, CniPart
from agent.config import CniConfig
from control.kit.http import HttpRequest
from control.model.intent import NamespaceIntent
from tests.support.clock import FakeClock
from tests.support.kube.cri import FakeRuntime
from tests.unit.agent.agent_example import example

PRIMARY = '{"cniVersion": "1.0.0", "name": "net", "plugins": [{"type": "bridge"}]}'


@pytest.fixture
def part(tmp_path: Path) -> CniPart:
    for name in ("conf", "bin", "run"):
        (tmp_path / name).mkdir()
    (tmp_path / "conf/10-a.conflist").write_text(PRIMARY)
    (tmp_path / "program").write_bytes(b"\x7fELF")
    (tmp_path / "bin/bridge").touch()
    chosen = CniConfig(
        program=tmp_path / "program",
        conf_dir=Path("/conf"),
        bin_dir=Path("/bin"),
        host_prefix=tmp_path,
        state_dir=tmp_path / "state",
        exempt=("kube-system", "shop", "absent"),
    )
    return CniPart(chosen, "n1", tmp_path / "run", FakeClock())


def tell(part: CniPart, **enrols: bool) -> None:
    told = {name: NamespaceIntent(name, value) for name, value in enrols.items()}
    part.namespaces_changed({name.replace("_", "-"): each for name, each in told.items()}, [])


def test_the_entry_tells_the_plugin_all_that_it_needs(part: CniPart, tmp_path: Path) -> None:
    part.keeper.look()
    assert not part.keeper.is_kept
    tell(part, kube_system=False, shop=True)
    part.keeper.look()
    made = json.loads((tmp_path / "conf/00-tulle.conflist").read_text())
    assert made["plugins"][-1] == {
        "type": "tulle-cni",
        "socket": str(tmp_path / "run/cni.sock"),
        "marker": str(tmp_path / "run/cni.boot"),
        "namespaces": str(tmp_path / "state/n1/namespaces"),
        "exempt": ["kube-system"],
    }
    assert (tmp_path / "state/n1/namespaces").read_text().splitlines()[1:-1] == [
        "-kube-system",
        "+shop",
    ]


def test_the_marker_is_of_this_boot(part: CniPart) -> None:
    part.opened()
    assert part.marker.read_text() == BOOT_ID.read_text()


def test_its_pages_uninstall_and_resume(part: CniPart, tmp_path: Path) -> None:
    tell(part, shop=True)
    part.keeper.look()
    routes = part.routes()

    def post(path: str) -> dict[str, object]:
        answer = asyncio.run(routes["POST", path](HttpRequest("POST", path, {}, {})))  # type: ignore[arg-type]
        return dict(json.loads(answer.body))

    assert post("/cni/uninstall")["program_removed"] is True
    assert part.status()["uninstalled"] is True
    tell(part, shop=True, more=False)
    assert not (tmp_path / "state/n1").exists()
    assert post("/cni/install")["kept"] is True
    assert (tmp_path / "bin/tulle-cni").exists()
    assert (tmp_path / "state/n1/namespaces").exists()


def test_its_status_is_for_people(part: CniPart, tmp_path: Path) -> None:
    tell(part, shop=True, plain=False, kube_system=False)
    agent = example(tmp_path)
    door = part.door(agent.enroller, agent.intents, agent.direct)
    door.calls["ADD", "ok"] += 2
    shown = json.loads(json.dumps(part.status()))
    assert shown["namespaces"] == {"in_mesh": 1, "outside": 2}
    assert shown["calls"] == {"ADD ok": 2}
    assert shown["conf_dir"] == str(tmp_path / "conf")


def test_folders_that_the_runtime_names_count_more_than_guesses(tmp_path: Path) -> None:
    for name in ("net", "bin"):
        (tmp_path / name).mkdir()
    (tmp_path / "program").write_bytes(b"\x7fELF")
    (tmp_path / "net/10-a.conflist").write_text(PRIMARY)
    told = {"cni": {"confDir": str(tmp_path / "net"), "binDirs": [str(tmp_path / "bin")]}}
    chosen = CniConfig(program=tmp_path / "program", state_dir=tmp_path)
    socket = tmp_path / "cri.sock"
    part = CniPart(chosen, "n1", tmp_path, FakeClock(), [socket])
    tell(part, shop=True)

    async def run() -> None:
        runtime = FakeRuntime(config=json.dumps(told))
        async with runtime.serving(socket), asyncio.timeout(5), asyncio.TaskGroup() as tasks:
            running = tasks.create_task(part.run())
            while not part.keeper.is_kept:  # noqa: ASYNC110 - another task's file
                await asyncio.sleep(0.005)
            running.cancel()

    asyncio.run(run())
    assert (tmp_path / "net/00-tulle.conflist").exists()
    assert (tmp_path / "bin/tulle-cni").exists()
    assert part.status()["source"] == "the runtime, by CRI"


def test_a_runtime_that_does_not_answer_leaves_its_files(tmp_path: Path) -> None:
    chosen = CniConfig(host_prefix=tmp_path, state_dir=tmp_path)
    part = CniPart(chosen, "n1", tmp_path, FakeClock(), [tmp_path / "absent"])
    assert asyncio.run(part._told()) is None
