"""Names on the wire are those of the messages: a slip would be an empty subscription, no error."""

from __future__ import annotations

import pytest
from google.protobuf.descriptor import Descriptor

from control.wire import (
    certificates_pb2,
    discovery_pb2,
    node_pb2,
    security_pb2,
    types,
    workload_pb2,
)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (types.ADDRESS_TYPE, workload_pb2.Address.DESCRIPTOR),
        (types.AUTHORIZATION_TYPE, security_pb2.Authorization.DESCRIPTOR),
        (types.POD_TYPE, node_pb2.Pod.DESCRIPTOR),
        (types.NAMESPACE_TYPE, node_pb2.Namespace.DESCRIPTOR),
    ],
)
def test_a_type_url_names_its_message(url: str, message: Descriptor) -> None:
    assert url == f"type.googleapis.com/{message.full_name}"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (types.CREATE_CERTIFICATE_METHOD, certificates_pb2.IstioCertificateRequest.DESCRIPTOR),
        (types.REPORT_METHOD, node_pb2.Pod.DESCRIPTOR),
        (types.DELTA_METHOD, discovery_pb2.DeltaDiscoveryRequest.DESCRIPTOR),
    ],
)
def test_a_method_is_of_its_messages_package(path: str, message: Descriptor) -> None:
    _, service, method = path.split("/")
    assert service.rpartition(".")[0] == message.file.package
    assert method.isidentifier()
