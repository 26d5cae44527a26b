"""`python -m ztunnel.worker --fd N`: started by the supervisor."""

import sys

from ztunnel.worker.process import main

sys.exit(main(sys.argv[1:]))
