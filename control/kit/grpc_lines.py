"""Keeps gRPC's core from writing to standard error, between our lines. To be imported before gRPC.

The core reads the variable as it is loaded, so each of our packages imports this first. It wrote a
line for each failed handshake; calls fail with the same words, and those are logged.
"""

import os

os.environ.setdefault("GRPC_VERBOSITY", "NONE")
