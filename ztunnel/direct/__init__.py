"""What the kernel may carry by itself on this node, as a worker sees it.

Read `verdicts` first: it decides; `path` holds the rest together.
"""

from ztunnel.compiled import prefer

prefer(__path__, "direct")
