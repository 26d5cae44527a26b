"""A call of the CNI plugin as it comes through the door, parsed; and the errors that answer it.

Pure. The body is the environment as NAME=VALUE, each with a NUL behind it, one more NUL, and the
plugin's standard input (daemonset/cni/agent.c).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from control.model.address import Address, is_loopback, parse_address

LEFT_S_MAX = 10.0  # the plugin's own patience
_LEFT_DIGITS_MAX = 9  # the plugin sends milliseconds of five digits
ADDRESSES_MAX = 16  # a pod has one or two of its network, a few more of networks of its own
ATTACHMENTS_MAX = 65536  # far more than containers of one node
VERSION = "1.1.0"


class CniCode(IntEnum):
    """Codes of the CNI specification; from 100 on they are the plugin's own."""

    BAD_ENVIRONMENT = 4
    BAD_CONFIG = 7
    TRY_LATER = 11
    REFUSED = 100


class CniError(Exception):
    """An answer that stops the runtime; `sentence` ends in the pod's events."""

    def __init__(self, code: CniCode, sentence: str, details: str = "") -> None:
        super().__init__(sentence)
        self.code = code
        self.sentence = sentence
        self.details = details

    def as_json(self, version: str) -> dict[str, Any]:
        said = {"cniVersion": version, "code": int(self.code), "msg": f"tulle: {self.sentence}"}
        return {**said, "details": self.details} if self.details else said


@dataclass(frozen=True, slots=True)
class CniCall:
    command: str
    container_id: str
    netns: str
    pod_namespace: str
    pod_name: str
    pod_uid: str
    left_s: float  # until the plugin gives up
    version: str
    addresses: tuple[Address, ...]  # that the plugins before ours gave the pod
    attachments: frozenset[str] | None  # ids of the containers that are; None: not told

    @property
    def pod(self) -> str:
        return f"{self.pod_namespace}/{self.pod_name}"


def parse_call(body: bytes) -> CniCall:
    """CniError: it is none."""
    head, separator, stdin = body.partition(b"\0\0")
    if not separator:
        raise CniError(CniCode.BAD_ENVIRONMENT, "the call has no environment")
    environment = _environment(head)
    config = _config(stdin)
    arguments = _arguments(environment.get("CNI_ARGS", ""))
    return CniCall(
        command=environment.get("CNI_COMMAND", ""),
        container_id=environment.get("CNI_CONTAINERID", ""),
        netns=environment.get("CNI_NETNS", ""),
        pod_namespace=arguments.get("K8S_POD_NAMESPACE", ""),
        pod_name=arguments.get("K8S_POD_NAME", ""),
        pod_uid=arguments.get("K8S_POD_UID", ""),
        left_s=_left_s(environment.get("TULLE_LEFT_MS", "")),
        version=version_of(config),
        addresses=_addresses(config.get("prevResult")),
        attachments=_attachments(config.get("cni.dev/valid-attachments")),
    )


def _environment(head: bytes) -> dict[str, str]:
    try:
        pairs = (each.partition("=") for each in head.decode().split("\0"))
    except UnicodeDecodeError:
        raise CniError(CniCode.BAD_ENVIRONMENT, "the environment is not UTF-8") from None
    return {name: value for name, _, value in pairs}


def _config(stdin: bytes) -> Mapping[str, Any]:
    if not stdin:
        return {}  # DEL may have none
    try:
        config = json.loads(stdin)
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        raise CniError(CniCode.BAD_CONFIG, "the network configuration is not a JSON object")
    return config


def version_of(config: Mapping[str, Any]) -> str:
    version = config.get("cniVersion")
    return version if isinstance(version, str) and version else VERSION


def _arguments(text: str) -> dict[str, str]:
    """CNI_ARGS: NAME=VALUE;NAME=VALUE. Of equal names the first counts, as in the plugin."""
    found: dict[str, str] = {}
    for each in text.split(";"):
        name, _, value = each.partition("=")
        found.setdefault(name, value)
    return found


def _left_s(text: str) -> float:
    is_number = text.isascii() and text.isdigit() and len(text) <= _LEFT_DIGITS_MAX
    return min(int(text) / 1000, LEFT_S_MAX) if is_number else LEFT_S_MAX


def _addresses(result: Any) -> tuple[Address, ...]:
    """The pod's own addresses in a result: those that are not on an interface of the host."""
    if not isinstance(result, dict):
        return ()
    interfaces = result.get("interfaces")
    found: dict[Address, None] = {}
    for each in _list(result.get("ips"))[:ADDRESSES_MAX]:
        if not isinstance(each, dict) or not _in_pod(each.get("interface"), _list(interfaces)):
            continue
        try:
            address = parse_address(str(each.get("address")).partition("/")[0])
        except ValueError:
            continue
        if not is_loopback(address):
            found[address] = None
    return tuple(found)


def _in_pod(index: Any, interfaces: list[Any]) -> bool:
    if not isinstance(index, int) or not 0 <= index < len(interfaces):
        return True  # plugins may leave it out
    interface = interfaces[index]
    return isinstance(interface, dict) and bool(interface.get("sandbox"))


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _attachments(value: Any) -> frozenset[str] | None:
    if not isinstance(value, list) or len(value) > ATTACHMENTS_MAX:
        return None
    ids = [each.get("containerID") if isinstance(each, dict) else None for each in value]
    named = frozenset(each for each in ids if isinstance(each, str) and each)
    # To free what is not named, all names have to be understood.
    return named if all(each in named for each in ids) else None
