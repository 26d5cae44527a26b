import control.kit.grpc_lines  # noqa: F401  (before anything imports gRPC)
