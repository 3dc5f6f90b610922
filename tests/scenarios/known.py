"""For the service whose behaviour is known: answers after 20 ms, some errors and redirects."""

import itertools

from locust import FastHttpUser, constant, task

arrivals = itertools.count(1)


class Visitor(FastHttpUser):
    wait_time = constant(0.02)

    @task
    def visit(self) -> None:
        self.client.get("/sleep?ms=20", name="sleep")
        if next(arrivals) % 10 == 0:
            self.client.get("/status?code=500", name="error")
            self.client.get("/redirect", name="redirect")
