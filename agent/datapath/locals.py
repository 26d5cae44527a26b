"""Workload ids, and the captured pods of this node by address.

A SYN from one of these addresses is refused unless the kernel half knows who sent it, and a pod is
reached directly only while its entry says so. An address is the last thing that a capture adds and
the first that a release removes.
"""

import struct
from collections.abc import Collection, Mapping

from agent.datapath.entries import WORKLOAD_ID_MAX
from agent.datapath.maps import Map
from agent.datapath.pods import CapturedPod
from bpf import layout
from control.model.address import Address, canonical, format_address, mapped

_ONLY = struct.pack("=I", 0)  # the key of a map with one entry


class Locals:
    def __init__(self, maps: Mapping[str, Map]) -> None:
        self._maps = maps

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
        """Add the pod's addresses, or bring them up to date."""
        for address in pod.addresses:
            self._maps["locals"].update(mapped(address), _value(pod))

    def remove(self, pod: CapturedPod, but: CapturedPod | None = None) -> None:
        """Remove the pod's addresses, except those that `but`, its next state, has as well."""
        for address in pod.addresses:
            if but is None or address not in but.addresses:
                self._remove(address, pod.workload_id)
        if but is None or but.workload_id != pod.workload_id:
            self._maps["pod_flows"].delete(struct.pack("=I", pod.workload_id))

    def _remove(self, address: Address, workload: int) -> None:
        """Remove the entry if it is still that workload's; the address may have a new owner."""
        found = self._maps["locals"].lookup(mapped(address))
        if found is not None and layout.Local.from_buffer_copy(found).workload == workload:
            self._maps["locals"].delete(mapped(address))

    def wrong(self, pods: Collection[CapturedPod]) -> list[str]:
        """Addresses whose entry is missing, another one than that of these pods, or too many."""
        wanted = {mapped(address): _value(pod) for pod in pods for address in pod.addresses}
        keys = set(self._maps["locals"]) | wanted.keys()
        return sorted(
            format_address(canonical(key))
            for key in keys
            if self._maps["locals"].lookup(key) != wanted.get(key)
        )

    def keep(self, pods: Collection[CapturedPod]) -> None:
        """Hold exactly the addresses of these pods: an earlier agent may have died half way."""
        wanted = {mapped(address) for pod in pods for address in pod.addresses}
        for key in list(self._maps["locals"]):
            if key not in wanted:
                self._maps["locals"].delete(key)
        ids = {struct.pack("=I", pod.workload_id) for pod in pods}
        for key in list(self._maps["pod_flows"]):
            if key not in ids:
                self._maps["pod_flows"].delete(key)
        for pod in pods:
            self.add(pod)


def _value(pod: CapturedPod) -> bytes:
    is_direct = pod.direct and pod.workload_id
    return bytes(layout.Local(workload=pod.workload_id, device=pod.device, direct=bool(is_direct)))
