from control.wire import workload_pb2 as _workload_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class WorkloadExtension(_message.Message):
    __slots__ = ("last_resort", "endpoint_node")
    LAST_RESORT_FIELD_NUMBER: _ClassVar[int]
    ENDPOINT_NODE_FIELD_NUMBER: _ClassVar[int]
    last_resort: bool
    endpoint_node: str
    def __init__(self, last_resort: _Optional[bool] = ..., endpoint_node: _Optional[str] = ...) -> None: ...

class ServiceExtension(_message.Message):
    __slots__ = ("affinity_s", "outer_addresses")
    AFFINITY_S_FIELD_NUMBER: _ClassVar[int]
    OUTER_ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    affinity_s: int
    outer_addresses: _containers.RepeatedCompositeFieldContainer[OuterAddress]
    def __init__(self, affinity_s: _Optional[int] = ..., outer_addresses: _Optional[_Iterable[_Union[OuterAddress, _Mapping]]] = ...) -> None: ...

class OuterAddress(_message.Message):
    __slots__ = ("address", "ports")
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    PORTS_FIELD_NUMBER: _ClassVar[int]
    address: _workload_pb2.NetworkAddress
    ports: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, address: _Optional[_Union[_workload_pb2.NetworkAddress, _Mapping]] = ..., ports: _Optional[_Iterable[int]] = ...) -> None: ...
