"""The part of the agent that is about CNI: the plugin's door, its files, its configuration."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from agent.cni.conflist import PLUGIN
from agent.cni.door import CniDoor, Known
from agent.cni.keeper import Keeper
from agent.cni.namespaces import NamespaceBook
from agent.cni.places import Told, find, of_cri_status
from agent.config import CniConfig
from agent.cri.client import SOCKETS, RuntimeAway, connected
from agent.enrol.enroller import Enroller
from agent.intents import Intents
from control.kit import http
from control.kit.clock import Clock
from control.kit.files import write_atomic
from control.model.intent import NamespaceIntent

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class CniPart:
    def __init__(
        self,
        chosen: CniConfig,
        node: str,
        folder: Path,
        clock: Clock,
        runtimes: Sequence[Path] = SOCKETS,
    ) -> None:
        """`folder` is the node's run-time folder, which has the same path on the host."""
        self._chosen = chosen
        self._runtimes = runtimes
        self._folder = folder
        self._namespaces_file = chosen.state_dir / node / "namespaces"
        self.namespaces = NamespaceBook(self._namespaces_file)
        self.namespaces.load()
        places = find(chosen.host_prefix, chosen.conf_dir, chosen.bin_dir)
        self.keeper = Keeper(places, chosen.program, self._entry, clock)
        self._door: CniDoor | None = None

    async def run(self) -> None:
        if self._chosen.conf_dir is None or self._chosen.bin_dir is None:
            chosen, told = self._chosen, await self._told()
            self.keeper.places = find(chosen.host_prefix, chosen.conf_dir, chosen.bin_dir, told)
        await self.keeper.run()

    async def _told(self) -> Told | None:
        """The runtime's word on its folders; None: its files have to do."""
        try:
            async with connected(self._runtimes) as runtime:
                return of_cri_status(await runtime.settings())
        except RuntimeAway:
            return None

    @property
    def socket(self) -> Path:
        return self._folder / "cni.sock"

    @property
    def marker(self) -> Path:
        return self._folder / "cni.boot"

    def _entry(self) -> Mapping[str, Any] | None:
        """Our plugin in the list. None: pods outside the mesh could not start without us yet."""
        if not self.namespaces.is_written:
            return None
        return {
            "type": PLUGIN,
            "socket": str(self.socket),
            "marker": str(self.marker),
            "namespaces": str(self._namespaces_file),
            "exempt": [each for each in self._chosen.exempt if self.namespaces.is_outside(each)],
        }

    def namespaces_changed(
        self, fresh: Mapping[str, NamespaceIntent], removed: Collection[str]
    ) -> None:
        self.namespaces.changed(fresh, removed)
        self.keeper.wake()

    def door(self, enroller: Enroller, intents: Intents, direct: Known) -> CniDoor:
        self._door = CniDoor(enroller, intents, direct, self.namespaces)
        return self._door

    def opened(self) -> None:
        """The door is there: from now on until the next boot this node can take pods."""
        write_atomic(self.marker, BOOT_ID.read_bytes(), sync=False)

    def routes(self) -> http.Routes:
        return {("POST", "/cni/uninstall"): self._uninstall, ("POST", "/cni/install"): self._resume}

    async def _uninstall(self, request: http.HttpRequest) -> http.HttpResponse:
        done = self.keeper.uninstall()
        self.namespaces.remove()
        return http.as_json(done)

    async def _resume(self, request: http.HttpRequest) -> http.HttpResponse:
        self.namespaces.restore()
        self.keeper.resume()
        return http.as_json(self.keeper.status())

    def status(self) -> dict[str, Any]:
        inside, outside = self.namespaces.counts()
        calls = {} if self._door is None else self._door.calls
        return {
            **self.keeper.status(),
            "namespaces": {"in_mesh": inside, "outside": outside},
            "calls": {f"{command} {outcome}": n for (command, outcome), n in calls.items()},
        }

    def calls(self) -> Mapping[tuple[str, str], int]:
        return {} if self._door is None else self._door.calls
