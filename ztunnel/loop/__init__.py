"""The worker's clock: one epoll loop, its polling before sleep, its time slices.

Read `reactor` first.
"""

from ztunnel.compiled import prefer

prefer(__path__, "loop")
