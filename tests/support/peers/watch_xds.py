"""A plain delta xDS client for people: prints each resource that a control plane sends.

    python -m tests.support.peers.watch_xds --control 127.0.0.1:15012 --root FILE --token FILE \\
        [--node n1] [--type address,policy,pod]

One line for each change, `+ TYPE NAME {message as JSON}` or `- TYPE NAME`, until Ctrl-C.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message

from control.wire import node_pb2, security_pb2, workload_pb2
from control.wire.channel import bearer, open_channel, read_token
from control.wire.delta import DeltaClient, NodeInfo
from control.wire.types import ADDRESS_TYPE, AUTHORIZATION_TYPE, DELTA_METHOD, POD_TYPE

TYPES: dict[str, tuple[str, type[Message]]] = {
    "address": (ADDRESS_TYPE, workload_pb2.Address),
    "policy": (AUTHORIZATION_TYPE, security_pb2.Authorization),
    "pod": (POD_TYPE, node_pb2.Pod),
}


async def watch(control: str, root_pem: bytes, token: str, node: str, names: list[str]) -> None:
    known = {TYPES[name][0]: (name, TYPES[name][1]) for name in names}
    client = DeltaClient(NodeInfo(f"watch~{node}", metadata={"NODE_NAME": node}), tuple(known))
    async with open_channel(control, root_pem, "") as channel:
        method: Any = channel.stream_stream(DELTA_METHOD, bytes, bytes)
        call = method(metadata=(bearer(token),))
        for request in client.opening():
            await call.write(request.SerializeToString())
        async for data in call:
            update = client.receive(data)
            name, message = known[update.type_url]
            for each in update.each():
                shown = json_format.MessageToJson(message.FromString(each.resource), indent=None)
                sys.stdout.write(f"+ {name} {each.name} {shown}\n")
            for gone in update.removed:
                sys.stdout.write(f"- {name} {gone}\n")
            sys.stdout.flush()
            answer = client.acknowledge(update.type_url, update.nonce)
            if answer is not None:
                await call.write(answer.SerializeToString())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--control", required=True, metavar="HOST:PORT")
    parser.add_argument("--root", required=True, type=Path, metavar="FILE")
    parser.add_argument("--token", required=True, type=Path, metavar="FILE")
    parser.add_argument("--node", default="n1")
    parser.add_argument("--type", default="address,policy")
    flags = parser.parse_args()
    root_pem, token = flags.root.read_bytes(), read_token(flags.token)
    try:
        asyncio.run(watch(flags.control, root_pem, token, flags.node, flags.type.split(",")))
    except KeyboardInterrupt:
        sys.exit(0)


if __name__ == "__main__":
    main()
