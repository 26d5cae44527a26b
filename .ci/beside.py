"""Two commands side by side: `.ci/beside.py SHOWN KEPT`, each a shell command.

The output of SHOWN passes as it comes; that of KEPT is kept in one piece and printed when it ends,
so that neither cuts the other's lines. Both run to their end, so that one run tells all that
fails. Ends with 1 if either failed. A signal goes to both.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import threading
import time
from typing import IO


class Pair:
    """The two processes, and the end of both, which a signal may ask for before they are there."""

    def __init__(self) -> None:
        self._started: list[subprocess.Popen[bytes]] = []
        self._is_ended = False
        # A terminal's interrupt reaches them by itself; whoever ends this one means them too.
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._end)
        signal.signal(signal.SIGINT, lambda *_: None)

    def start(self, command: str, output: IO[bytes] | None = None) -> subprocess.Popen[bytes]:
        errors = None if output is None else subprocess.STDOUT
        made = subprocess.Popen(command, shell=True, stdout=output, stderr=errors)
        self._started.append(made)
        if self._is_ended:
            made.terminate()
        return made

    def _end(self, *_: object) -> None:
        self._is_ended = True
        for each in self._started:
            each.terminate()


def main(shown: str, kept: str) -> int:
    pair = Pair()
    with tempfile.TemporaryFile() as output:
        other = pair.start(kept, output)
        first = pair.start(shown)
        teller = threading.Thread(target=_tell, args=(other, kept, output))
        teller.start()
        codes = [first.wait(), other.wait()]
        teller.join()
    return int(any(codes))


def _tell(command: subprocess.Popen[bytes], words: str, output: IO[bytes]) -> None:
    began_s = time.monotonic()
    code = command.wait()
    output.seek(0)
    sys.stdout.flush()
    end = f"ended with {code}" if code else "done"
    line = f"\nbeside, {end} after {time.monotonic() - began_s:.0f} s: {words}\n"
    sys.stdout.buffer.write(line.encode() + output.read())
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
