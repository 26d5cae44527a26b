"""A lab: nodes and pods as network namespaces of one Linux host; no mesh logic."""
