"""WebSocket for `workloads.websocket_users`: connections whose messages are rows."""
