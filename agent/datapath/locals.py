"""Workload ids, and the addresses at which pods of this node may be reached directly.

An address is the last thing that a capture adds and the first that a release removes.
"""

import struct
from collections.abc import Collection, Mapping

from agent.datapath.entries import WORKLOAD_ID_MAX
from agent.datapath.maps import Map
from agent.datapath.pods import CapturedPod
from agent.datapath.tables import DirectTables
from control.model.address import Address, mapped

_ONLY = struct.pack("=I", 0)  # the key of a map with one entry


class Locals:
    """`tables`: None on a kernel without the direct path; then there are ids and no addresses."""

    def __init__(self, maps: Mapping[str, Map], tables: DirectTables | None) -> None:
        self._maps = maps
        self._tables = tables

    def workload_id(
        self, known: CapturedPod | None, wanted: CapturedPod, pods: Collection[CapturedPod]
    ) -> int:
        """The id of `wanted`: its own for as long as it is captured at the same addresses.

        Verdicts are about addresses too, and old ones may still be there: so an id is never given
        twice. 0, no part in the direct path, when all are used up.
        """
        if known is not None and known.workload_id and known.addresses == wanted.addresses:
            return known.workload_id
        raw = self._maps["workload_last"].lookup(_ONLY) or bytes(4)
        # A table of a new layout starts at 0, beside pods with ids that were taken over.
        (given,) = struct.unpack("=I", raw)
        last: int = max([given, *(pod.workload_id for pod in pods)])
        if last >= WORKLOAD_ID_MAX:
            return 0
        self._maps["workload_last"].update(_ONLY, struct.pack("=I", last + 1))
        return last + 1

    def add(self, pod: CapturedPod) -> None:
        for address in self._addresses(pod):
            assert self._tables is not None
            self._tables.add_local(address, pod.workload_id, pod.device)

    def remove(self, pod: CapturedPod, but: CapturedPod | None = None) -> None:
        """Remove the pod's addresses, except those that `but`, its next state, has as well."""
        kept = self._addresses(but) if but is not None else ()
        for address in pod.addresses:
            if self._tables is not None and address not in kept:
                self._tables.remove_local(address, pod.workload_id)

    def keep(self, pods: Collection[CapturedPod]) -> None:
        """Hold exactly the addresses of these pods: an earlier agent may have died half way."""
        wanted = {mapped(address) for pod in pods for address in self._addresses(pod)}
        for key in list(self._maps["locals"]):
            if key not in wanted:
                self._maps["locals"].delete(key)
        for pod in pods:
            self.add(pod)

    def _addresses(self, pod: CapturedPod) -> tuple[Address, ...]:
        is_reachable = self._tables is not None and pod.direct and pod.workload_id
        return pod.addresses if is_reachable else ()
