"""Few requests by the fast user, so that a busy machine spoils nothing."""

from locust import constant_pacing, task

from workloads.users import HttpUser


class Visitor(HttpUser):
    wait_time = constant_pacing(0.02)

    @task
    def visit(self) -> None:
        self.client.get("/", name="/")
