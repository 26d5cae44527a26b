"""Names that the control plane has answered, where addresses come on demand. No I/O.

A name is `network/ip`, or `namespace/hostname` of a service. Where all addresses come unasked, what
is not in the state is not in the mesh. On demand that is so only for a name that was answered: of
any other nothing is known, and nothing may be decided.
"""

from __future__ import annotations

from collections.abc import Iterator

from control.model.address import Address, format_address
from ztunnel.mesh.entries import Entry, Op


def address_name(network: str, address: Address) -> str:
    """The name by which the owners of an address are asked for."""
    return f"{network}/{format_address(address)}"


class KnownNames:
    """`on_demand` is False where everything comes unasked: then every name is known."""

    def __init__(self) -> None:
        self.on_demand = False
        self._names: set[str] = set()

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return not self.on_demand or name in self._names

    def apply(self, entry: Entry) -> bool:
        """Take over an entry of KNOWN, UNKNOWN, ON_DEMAND or ALL. True if a decision of before may
        be another now: not for a name that is new, since nothing was decided without it."""
        match entry.op:
            case Op.KNOWN:
                self._names.add(entry.name)
                return False
            case Op.UNKNOWN:
                self._names.discard(entry.name)
                return self.on_demand
            case _:
                was, self.on_demand = self.on_demand, entry.op is Op.ON_DEMAND
                if not self.on_demand:
                    self._names = set()
                return was is not self.on_demand

    def entries(self) -> Iterator[Entry]:
        """Entries that bring an empty one to this one."""
        if self.on_demand:
            yield Entry(Op.ON_DEMAND)
        for name in self._names:
            yield Entry(Op.KNOWN, name)
