"""The direct path as a worker sees it: what the kernel may carry by itself on this node.

Read `verdicts` first: it decides; `path` holds the rest together.
"""

from ztunnel.compiled import prefer

prefer(__path__, "direct")
