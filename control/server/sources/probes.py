"""Ports that a pod's object names for the kubelet, resolved as the kubelet does it.

A probe that names a host of its own does not come to this pod, so it opens no port of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from control.model.intent import PROBE_PORTS_MAX
from control.server.sources.reader import Reader

_PROBES = ("livenessProbe", "readinessProbe", "startupProbe")
_HOOKS = ("postStart", "preStop")
# Sidecars are init containers; the API server lets no others have probes.
_CONTAINERS = ("containers", "initContainers")


@dataclass(frozen=True, slots=True)
class Probes:
    """Each port once, in the object's order; `notes` say what is not recognised, and why."""

    ports: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()


NO_PROBES = Probes()


def read_probes(spec: Reader) -> Probes:
    ports: dict[int, None] = {}
    notes: list[str] = []
    for kind in _CONTAINERS:
        for container in spec.children(kind):
            for action in _actions(container):
                found = _port_or_note(action, container)
                if isinstance(found, int):
                    ports[found] = None
                else:
                    notes.append(found)
    if len(ports) > PROBE_PORTS_MAX:
        notes.append(
            f"probes of {len(ports)} ports: under STRICT only the first {PROBE_PORTS_MAX} pass"
        )
    if not ports and not notes:
        return NO_PROBES
    return Probes(tuple(ports)[:PROBE_PORTS_MAX], tuple(notes))


def _actions(container: Reader) -> Iterator[Reader]:
    """All that the kubelet may dial."""
    for name in _PROBES:
        probe = container.child(name)
        if probe is not None:
            yield from _children(probe, "httpGet", "tcpSocket", "grpc")
    lifecycle = container.child("lifecycle")
    if lifecycle is not None:
        for name in _HOOKS:
            yield from _children(lifecycle.part(name), "httpGet")


def _children(reader: Reader, *names: str) -> Iterator[Reader]:
    for name in names:
        child = reader.child(name)
        if child is not None:
            yield child


def _port_or_note(action: Reader, container: Reader) -> int | str:
    host = action.text("host")
    if host:
        return f"{action.path}: goes to host {host!r}, not to this pod: no probe to STRICT pods"
    value = action.fields.get("port")
    if not isinstance(value, str):
        number = action.port("port")
        if number is None:
            raise action.invalid("port", "is missing")
        return number
    number = _named_ports(container).get(value, _number(value))
    if number is None:
        return f"{action.path}: no port of the container is called {value!r}"
    return number


def _number(text: str) -> int | None:
    """A number that was written as a string; the kubelet takes that, too."""
    if text.isascii() and text.isdigit() and len(text) <= 5 and 0 < int(text) < 65536:
        return int(text)
    return None


def _named_ports(container: Reader) -> dict[str, int]:
    """The container's own; of two ports with one name the first counts."""
    found: dict[str, int] = {}
    for port in container.children("ports"):
        number = port.port("containerPort")
        if number is not None and port.text("name"):
            found.setdefault(port.text("name"), number)
    return found
