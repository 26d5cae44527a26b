"""Keys and certificates of the identities of this node.

Read `certs` first. It runs in the supervisor; private keys never leave the node.
"""
