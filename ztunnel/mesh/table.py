"""Messages by name, and the values of those in use. No I/O."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

from google.protobuf.message import DecodeError

from control.kit.errors import WireError
from control.model.workload import Service, Workload
from control.wire import workload_pb2
from control.wire.convert import resource_from_wire

_Value = TypeVar("_Value", bound=Workload | Service)


class Table(Generic[_Value]):
    """Messages as they came, and decoded values of those in use.

    Two dictionaries instead of one of records: bytes are invisible to the garbage collector, and it
    need not look through a mesh of 10,000 workloads.
    """

    def __init__(self, kind: type[_Value]) -> None:
        self._kind = kind
        self.raw: dict[str, bytes] = {}
        self._values: dict[str, _Value] = {}

    def put(self, name: str, raw: bytes) -> None:
        self.raw[name] = raw
        self._values.pop(name, None)

    def pop(self, name: str) -> bytes | None:
        self._values.pop(name, None)
        return self.raw.pop(name, None)

    def value(self, name: str) -> _Value | None:
        """The decoded value, None without a message; WireError when it cannot be understood."""
        value = self._values.get(name)
        if value is None and (raw := self.raw.get(name)) is not None:
            value = self._values[name] = self._decoded(raw)
        return value

    def each(self) -> Iterator[_Value]:
        """Yield every value, decoded one by one and not kept: for pages, not for connections."""
        for name, raw in list(self.raw.items()):
            value = self._values.get(name)
            try:
                yield value if value is not None else self._decoded(raw)
            except WireError:
                pass  # its first use finds that out, and drops it

    def _decoded(self, raw: bytes) -> _Value:
        try:
            value = resource_from_wire(workload_pb2.Address.FromString(raw))
        except DecodeError as exc:
            raise WireError(str(exc)) from exc
        if not isinstance(value, self._kind):
            raise WireError(f"not a {self._kind.__name__}")
        return value
