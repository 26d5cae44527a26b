"""One worker process: acts on the supervisor's frames.

Read `worker` first; `python -m ztunnel.worker` starts it.
"""
