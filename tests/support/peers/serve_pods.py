"""An agent without a kernel half: hands pods to the ztunnel that connects, and keeps the line open.

python -m tests.support.peers.serve_pods --socket PATH UID,NAMESPACE,NAME,ACCOUNT,NETNS ...
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from tests.support.peers.zds_agent import zds_agent


async def serve(path: Path, pods: list[str]) -> None:
    with zds_agent(path) as agent:
        await agent.accept()
        for pod in pods:
            uid, namespace, name, account, netns = pod.split(",")
            answer = await agent.add(uid, name, namespace, account, Path(netns))
            answer.close()
            sys.stdout.write(f"{namespace}/{name}: {answer.error or 'served'}\n")
        await agent.snapshot_sent()
        sys.stdout.flush()
        await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--socket", required=True, type=Path)
    parser.add_argument("pods", nargs="+")
    flags = parser.parse_args()
    flags.socket.unlink(missing_ok=True)
    try:
        asyncio.run(serve(flags.socket, flags.pods))
    except KeyboardInterrupt:
        sys.exit(0)


if __name__ == "__main__":
    main()
