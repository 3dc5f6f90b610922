"""A scenario that raises when it is imported."""

from locust import FastHttpUser  # noqa: F401

raise RuntimeError("the fixture file is missing")
