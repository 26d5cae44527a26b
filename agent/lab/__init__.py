"""Nodes and pods out of network namespaces on one Linux host. No mesh logic lives here."""
