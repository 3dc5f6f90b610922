"""HTTP/1.1 for the load generator: one client, its connections, its answers."""
