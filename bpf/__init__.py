"""The kernel half of the mesh: programs in C, their map contract and its ctypes twin."""
