"""The load generator: Locust in a process of its own, and what talks to it."""
