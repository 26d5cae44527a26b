"""Ports of probes and hooks, resolved as the kubelet does it."""

from __future__ import annotations

import pytest

from control.model.intent import PROBE_PORTS_MAX
from control.server.sources.probes import NO_PROBES, Probes
from tests.support.manifests import load, objects, pod


def probes(containers: str, more: str = "") -> Probes:
    (found,) = objects(pod(spec=f"containers: [{containers}]{more}")).pods
    return found.probes


PORTS = "ports: [{name: web, containerPort: 8080}, {name: '9', containerPort: 7}]"


@pytest.mark.parametrize(
    ("container", "port"),
    [
        ("livenessProbe: {httpGet: {port: 80, path: /live}}", 80),
        ("readinessProbe: {tcpSocket: {port: 81}}", 81),
        ("startupProbe: {grpc: {port: 82, service: ready}}", 82),
        ("lifecycle: {postStart: {httpGet: {port: 83}}}", 83),
        ("lifecycle: {preStop: {httpGet: {port: web}}}, " + PORTS, 8080),
        ("livenessProbe: {httpGet: {port: web}}, " + PORTS, 8080),
        ("livenessProbe: {tcpSocket: {port: '8081'}}", 8081),
        ("livenessProbe: {tcpSocket: {port: '9'}}, " + PORTS, 7),  # a name before a number
        ("livenessProbe: {httpGet: {port: 80, host: ''}}", 80),
    ],
)
def test_each_kind_names_its_port(container: str, port: int) -> None:
    assert probes(f"{{{container}}}") == Probes((port,))


@pytest.mark.parametrize(
    "container",
    [
        "",
        "livenessProbe: {exec: {command: [ls]}}",
        "lifecycle: {preStop: {sleep: {seconds: 1}}}",
        "lifecycle: {preStop: {tcpSocket: {port: 80}}}",  # accepted, and never run
        "livenessProbe: null",
        PORTS,
    ],
)
def test_what_dials_nobody_names_no_port(container: str) -> None:
    assert probes(f"{{{container}}}") is NO_PROBES


def test_sidecars_count_and_each_port_once() -> None:
    found = probes(
        "{livenessProbe: {httpGet: {port: 80}}, readinessProbe: {httpGet: {port: 80}}},"
        "{readinessProbe: {grpc: {port: 90}}}",
        ", initContainers: [{restartPolicy: Always, startupProbe: {tcpSocket: {port: 70}}}]",
    )
    assert found.ports == (80, 90, 70)


def test_a_name_is_one_of_its_own_container() -> None:
    (found,) = probes("{livenessProbe: {httpGet: {port: web}}}, {" + PORTS + "}").notes
    assert (
        found == "spec.containers[0].livenessProbe.httpGet: no port of the container is called "
        "'web'"
    )


@pytest.mark.parametrize("port", ["'0'", "'65536'", "'08x'", "'٣'", "''", "'999999999999'"])
def test_a_string_that_is_no_port_is_noted(port: str) -> None:
    found = probes(f"{{livenessProbe: {{tcpSocket: {{port: {port}}}}}}}")
    assert found.ports == ()
    assert len(found.notes) == 1


def test_a_probe_of_another_host_opens_nothing_here() -> None:
    found = probes(
        "{livenessProbe: {httpGet: {port: 80, host: 10.0.0.9}},"
        " readinessProbe: {tcpSocket: {port: 81}}}"
    )
    assert found.ports == (81,)
    (said,) = found.notes
    assert "'10.0.0.9'" in said


def test_there_is_a_bound_and_it_is_said() -> None:
    containers = ", ".join(
        f"{{livenessProbe: {{tcpSocket: {{port: {port}}}}}}}"
        for port in range(1, PROBE_PORTS_MAX + 2)
    )
    found = probes(containers)
    assert found.ports == tuple(range(1, PROBE_PORTS_MAX + 1))
    assert found.notes[0].startswith("probes of 65 ports")


@pytest.mark.parametrize(
    "probe",
    [
        "{httpGet: {}}",
        "{httpGet: {port: 70000}}",
        "{httpGet: {port: true}}",
        "{httpGet: {port: 80, host: 7}}",
        "7",
    ],
)
def test_what_the_api_server_would_refuse_is_refused(probe: str) -> None:
    found = load(pod(spec=f"containers: [{{livenessProbe: {probe}}}]"))
    assert [each.reason for each in found.problems] == ["invalid"]
