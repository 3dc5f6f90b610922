"""For the service that counts every request in its ledger: one short request after the other."""

from locust import FastHttpUser, constant, task


class Visitor(FastHttpUser):
    wait_time = constant(0.01)

    @task
    def visit(self) -> None:
        self.client.get("/sleep?ms=2", name="visit")
