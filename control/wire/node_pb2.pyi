from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Pod(_message.Message):
    __slots__ = ("uid", "name", "namespace", "service_account", "node", "addresses", "enrolled", "reason", "direct", "direct_reason", "probe_ports")
    UID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    SERVICE_ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    ENROLLED_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    DIRECT_FIELD_NUMBER: _ClassVar[int]
    DIRECT_REASON_FIELD_NUMBER: _ClassVar[int]
    PROBE_PORTS_FIELD_NUMBER: _ClassVar[int]
    uid: str
    name: str
    namespace: str
    service_account: str
    node: str
    addresses: _containers.RepeatedScalarFieldContainer[bytes]
    enrolled: bool
    reason: str
    direct: bool
    direct_reason: str
    probe_ports: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, uid: _Optional[str] = ..., name: _Optional[str] = ..., namespace: _Optional[str] = ..., service_account: _Optional[str] = ..., node: _Optional[str] = ..., addresses: _Optional[_Iterable[bytes]] = ..., enrolled: _Optional[bool] = ..., reason: _Optional[str] = ..., direct: _Optional[bool] = ..., direct_reason: _Optional[str] = ..., probe_ports: _Optional[_Iterable[int]] = ...) -> None: ...

class Namespace(_message.Message):
    __slots__ = ("name", "enrols")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ENROLS_FIELD_NUMBER: _ClassVar[int]
    name: str
    enrols: bool
    def __init__(self, name: _Optional[str] = ..., enrols: _Optional[bool] = ...) -> None: ...

class ReportRequest(_message.Message):
    __slots__ = ("node", "captured_uids", "captured_pods")
    NODE_FIELD_NUMBER: _ClassVar[int]
    CAPTURED_UIDS_FIELD_NUMBER: _ClassVar[int]
    CAPTURED_PODS_FIELD_NUMBER: _ClassVar[int]
    node: str
    captured_uids: _containers.RepeatedScalarFieldContainer[str]
    captured_pods: _containers.RepeatedCompositeFieldContainer[CapturedPod]
    def __init__(self, node: _Optional[str] = ..., captured_uids: _Optional[_Iterable[str]] = ..., captured_pods: _Optional[_Iterable[_Union[CapturedPod, _Mapping]]] = ...) -> None: ...

class CapturedPod(_message.Message):
    __slots__ = ("uid", "addresses")
    UID_FIELD_NUMBER: _ClassVar[int]
    ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    uid: str
    addresses: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, uid: _Optional[str] = ..., addresses: _Optional[_Iterable[bytes]] = ...) -> None: ...

class ReportResponse(_message.Message):
    __slots__ = ("replica", "replica_addresses")
    REPLICA_FIELD_NUMBER: _ClassVar[int]
    REPLICA_ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    replica: str
    replica_addresses: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, replica: _Optional[str] = ..., replica_addresses: _Optional[_Iterable[bytes]] = ...) -> None: ...
