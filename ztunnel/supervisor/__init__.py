"""The supervisor process: hears the agent and the control plane, and keeps the workers told.

Read `supervisor` first, then `workers`. No user byte passes through it.
"""
