"""gRPC for `workloads.grpc_users`: descriptors, calls that are rows, and what went wrong."""
