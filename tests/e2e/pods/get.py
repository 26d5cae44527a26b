"""One request to each URL, without a second try: exit code 0 if all were answered.

`service:NAME` is a service of the pod's own namespace, by its address: no name server is needed.
"""

from __future__ import annotations

import os
import socket
import sys
import urllib.error
import urllib.request

TIMEOUT_S = 10.0


def url_of(target: str) -> str:
    kind, _, name = target.partition(":")
    if kind != "service":
        return target
    host = os.environ[f"{name.upper()}_SERVICE_HOST"]
    return f"http://[{host}]/" if ":" in host else f"http://{host}/"


def fault(exc: OSError) -> str:
    """`refused` is what a policy's no looks like; a name that is not found is none."""
    why = exc.reason if isinstance(exc, urllib.error.URLError) else exc
    return "unresolved" if isinstance(why, socket.gaierror) else "refused"


def main(targets: list[str]) -> int:
    failed = 0
    for target in targets:
        url = url_of(target)
        try:
            with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:
                sys.stdout.write(f"{url} {answer.read().decode().strip()}\n")
        except urllib.error.HTTPError as exc:
            sys.stdout.write(f"{url} answered: {exc}\n")
            failed += 1
        except OSError as exc:
            sys.stdout.write(f"{url} {fault(exc)}: {exc}\n")
            failed += 1
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
