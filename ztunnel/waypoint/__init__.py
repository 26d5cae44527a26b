"""The process beside a waypoint's Envoy: its certificate, its way to the control plane, its life.

Read `waypoint` first. Envoy carries the traffic; nothing here sees a byte of it.
"""
